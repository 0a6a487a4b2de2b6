use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::voice::ids::ChannelId;
use crate::voice::topology::Restrictions;

const ROOM: RoomKey = RoomKey::Dm { channel: ChannelId(5) };

fn region(id: &str, latitude: f64, longitude: f64) -> Region {
    Region {
        id: id.into(),
        name: id.into(),
        latitude,
        longitude,
        ..Region::default()
    }
}

fn server(region: &str, id: &str) -> Server {
    Server {
        region_id: region.into(),
        server_id: id.into(),
        endpoint: format!("wss://{region}-{id}"),
        api_key: "key".into(),
        api_secret: "secret".into(),
        is_active: true,
        ..Server::default()
    }
}

fn world() -> Topology {
    let mut topology = Topology::default();
    let mut us = region("us", 39.8, -98.5);
    us.is_default = true;
    for region in [us, region("eu", 50.0, 14.4), region("asia", 35.6, 139.6)] {
        topology.put_region(region.clone()).unwrap();
        topology.put_server(server(&region.id, "a")).unwrap();
        topology.put_server(server(&region.id, "b")).unwrap();
    }
    topology
}

fn wish<'a>(region: Option<&'a str>, coordinates: Option<(f64, f64)>) -> Wish<'a> {
    Wish {
        access: Access {
            user: UserId(1),
            guild: None,
        },
        region,
        coordinates: coordinates.and_then(|(latitude, longitude)| Coordinates::new(latitude, longitude)),
        room: ROOM,
    }
}

#[test]
fn explicit_then_distance_then_default() {
    let topology = world();
    let chosen = |region, coordinates| topology.choose_region(&wish(region, coordinates)).unwrap();
    let prague = Some((50.1, 14.4));
    assert_eq!(chosen(Some("asia"), prague), "asia");
    assert_eq!(chosen(None, prague), "eu");
    assert_eq!(chosen(None, None), "us");
    assert_eq!(chosen(Some("nowhere"), None), "us");
    assert_eq!(chosen(Some("nowhere"), prague), "eu");
}

#[test]
fn servers_take_turns_and_those_that_are_away_or_full_are_passed_over() {
    let mut topology = world();
    let turns = |topology: &mut Topology, count: usize| {
        let mut seen = BTreeMap::new();
        for _ in 0..count {
            *seen
                .entry(topology.choose(&wish(Some("eu"), None)).unwrap().server)
                .or_insert(0) += 1;
        }
        seen
    };
    assert_eq!(turns(&mut topology, 10), [("a".into(), 5), ("b".into(), 5)].into());
    let a = server("eu", "a").key();
    topology.set_down(&a, true);
    assert_eq!(turns(&mut topology, 4), [("b".into(), 4)].into());
    topology.set_down(&a, false);
    topology
        .put_server(Server {
            soft_connection_limit: Some(1),
            ..server("eu", "b")
        })
        .unwrap();
    topology.connected(&server("eu", "b").key());
    assert_eq!(turns(&mut topology, 4), [("a".into(), 4)].into());
    topology
        .put_server(Server {
            is_active: false,
            ..server("eu", "a")
        })
        .unwrap();
    assert_eq!(
        turns(&mut topology, 2),
        [("b".into(), 2)].into(),
        "a full one is better than none"
    );
    topology.set_down(&server("eu", "b").key(), true);
    let elsewhere = topology.choose(&wish(Some("eu"), None)).unwrap();
    assert_eq!(elsewhere.region, "us", "another region where this one has nothing");
}

#[test]
fn a_server_with_a_place_of_its_own_is_chosen_by_it() {
    let mut topology = world();
    let vienna = Server {
        latitude: Some(48.2),
        longitude: Some(16.4),
        soft_connection_limit: Some(1),
        ..server("us", "vienna")
    };
    topology.put_server(vienna.clone()).unwrap();
    let near_vienna = wish(None, Some((48.0, 16.0)));
    assert_eq!(topology.choose(&near_vienna).unwrap(), vienna.key());
    assert_eq!(
        topology.choose(&wish(Some("asia"), Some((48.0, 16.0)))).unwrap().region,
        "asia"
    );
}

#[test]
fn no_server_is_said() {
    assert_eq!(Topology::default().choose(&wish(None, None)), None);
    let mut topology = world();
    for id in ["us", "eu", "asia"] {
        topology
            .put_region(Region {
                restrictions: Restrictions {
                    vip_only: true,
                    ..Restrictions::default()
                },
                ..region(id, 0.0, 0.0)
            })
            .unwrap();
    }
    assert_eq!(topology.choose(&wish(None, None)), None, "VIP regions are for guilds");
}

#[test]
fn coordinates_that_cannot_be_used_are_none() {
    let parse = |latitude, longitude| Coordinates::parse(latitude, longitude);
    assert!(parse(Some("59.33"), Some("18.06")).is_some());
    let long = "1".repeat(33);
    for (latitude, longitude) in [
        (None, None),
        (Some("59"), None),
        (Some("91"), Some("0")),
        (Some("NaN"), Some("0")),
        (Some("inf"), Some("0")),
        (Some("x"), Some("0")),
        (Some(long.as_str()), Some("0")),
    ] {
        assert_eq!(parse(latitude, longitude), None, "{latitude:?} {longitude:?}");
    }
}

/// The rule in the words of its description, clause by clause.
fn admits_by_the_book(restrictions: &Restrictions, user: u64, guild: Option<(u64, Option<&BTreeSet<String>>)>) -> bool {
    if !restrictions.allowed_user_ids.is_empty() && !restrictions.allowed_user_ids.contains(&UserId(user)) {
        return false;
    }
    let guilds = &restrictions.allowed_guild_ids;
    let features = &restrictions.required_guild_features;
    if guilds.is_empty() && features.is_empty() && !restrictions.vip_only {
        return true;
    }
    let Some((guild, known)) = guild else { return false };
    if guilds.contains(&GuildId(guild)) {
        return true;
    }
    if !guilds.is_empty() && features.is_empty() && !restrictions.vip_only {
        return false;
    }
    let Some(known) = known else { return false };
    if restrictions.vip_only && !known.contains("VIP_VOICE") {
        return false;
    }
    features.is_empty() || features.iter().any(|feature| known.contains(feature))
}

fn restrictions() -> impl Strategy<Value = Restrictions> {
    let features = prop::collection::btree_set(prop::sample::select(vec!["A".to_owned(), "B".to_owned()]), 0..3);
    let guilds = prop::collection::btree_set((1u64..4).prop_map(GuildId), 0..3);
    let users = prop::collection::btree_set((1u64..4).prop_map(UserId), 0..3);
    (any::<bool>(), features, guilds, users).prop_map(|(vip_only, features, guilds, users)| Restrictions {
        vip_only,
        required_guild_features: features,
        allowed_guild_ids: guilds,
        allowed_user_ids: users,
    })
}

proptest! {
    #[test]
    fn restrictions_and_distance_are_as_the_simple_reference_says(
        records in prop::collection::vec((-90.0..90.0f64, -180.0..180.0f64, restrictions(), restrictions(), any::<bool>(), any::<bool>()), 0..6),
        user in 1u64..4,
        guild in prop::option::of(1u64..4),
        features in prop::option::of(prop::collection::btree_set(prop::sample::select(vec!["A".to_owned(), "VIP_VOICE".to_owned()]), 0..3)),
        here in prop::option::of((-90.0..90.0f64, -180.0..180.0f64)),
        named in prop::option::of(0usize..8),
    ) {
        let mut topology = Topology::default();
        for (index, (latitude, longitude, of_region, of_server, is_default, is_active)) in records.iter().enumerate() {
            let id = format!("r{index}");
            let record = Region { is_default: *is_default, restrictions: of_region.clone(), ..region(&id, *latitude, *longitude) };
            topology.put_region(record).unwrap();
            let record = Server { is_active: *is_active, restrictions: of_server.clone(), ..server(&id, "s") };
            topology.put_server(record).unwrap();
        }
        let guild_of = guild.map(|guild| (guild, features.as_ref()));
        let usable: Vec<usize> = (0..records.len())
            .filter(|index| {
                let (_, _, of_region, of_server, _, is_active) = &records[*index];
                *is_active && admits_by_the_book(of_region, user, guild_of) && admits_by_the_book(of_server, user, guild_of)
            })
            .collect();
        let distance = |index: &usize| {
            let (latitude, longitude) = here.unwrap();
            let (to_latitude, to_longitude, ..) = records[*index];
            // The spherical law of cosines: another formula for the same arc.
            let (a, b) = (latitude.to_radians(), to_latitude.to_radians());
            let cosine = a.sin() * b.sin() + a.cos() * b.cos() * (to_longitude - longitude).to_radians().cos();
            cosine.clamp(-1.0, 1.0).acos() * 6371.0
        };
        let expected = match (named, here) {
            (Some(named), _) if usable.contains(&named) => Some(named),
            (_, Some(_)) => usable.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b))),
            _ => usable.iter().copied().find(|index| records[*index].4).or(usable.first().copied()),
        };
        let named = named.map(|index| format!("r{index}"));
        let wish = Wish {
            access: Access { user: UserId(user), guild: guild_of.map(|(guild, features)| (GuildId(guild), features)) },
            region: named.as_deref(),
            coordinates: here.and_then(|(latitude, longitude)| Coordinates::new(latitude, longitude)),
            room: ROOM,
        };
        let chosen = topology.choose(&wish).map(|key| key.region);
        prop_assert_eq!(chosen, expected.map(|index| format!("r{index}")));
    }
}
