//! Whatever happens, in whatever order: nobody is shown who is not there, nobody is there who is not shown, nobody may more
//! than the directory says, and the same inputs lead to the same end.

use proptest::prelude::*;
use serde_json::json;

use super::world::*;
use crate::voice::rights::MediaGrant;
use crate::voice::*;

const SPEAK: u64 = 1 << 21;

#[derive(Clone, Debug)]
enum Step {
    /// 3 to 6 asks for a channel.
    Ask(usize, &'static str),
    /// Somebody connects with a token, of which they may have several.
    Connect(usize),
    /// Somebody's client or network goes.
    Break(usize),
    /// Leaves everything.
    Leave(usize),
    Moderate(u64, Moderation),
    Speech(bool),
    Kick(u64),
    Return(u64),
    Timeout(u64),
    Region(Option<&'static str>),
    Empty(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let channel = prop::sample::select(vec!["10", "11", "13", "20", "21"]);
    let region = prop::sample::select(vec![None, Some(US), Some(EU)]);
    let target = prop::sample::select(vec![
        None,
        Some(None),
        Some(Some(ChannelId(10))),
        Some(Some(ChannelId(11))),
    ]);
    let flag = || prop::option::of(any::<bool>());
    let moderation = (flag(), flag(), target).prop_map(|(mute, deaf, channel)| Moderation {
        mute,
        deaf,
        channel,
        connection: None,
    });
    prop_oneof![
        6 => (0..4usize, channel).prop_map(|(client, channel)| Step::Ask(client, channel)),
        6 => any::<usize>().prop_map(Step::Connect),
        2 => any::<usize>().prop_map(Step::Break),
        1 => (0..4usize).prop_map(Step::Leave),
        3 => (3..=6u64, moderation).prop_map(|(user, moderation)| Step::Moderate(user, moderation)),
        1 => any::<bool>().prop_map(Step::Speech),
        1 => (3..=6u64).prop_map(Step::Kick),
        1 => (3..=6u64).prop_map(Step::Return),
        1 => (3..=6u64).prop_map(Step::Timeout),
        1 => region.prop_map(Step::Region),
        1 => any::<usize>().prop_map(Step::Empty),
        2 => (1..40u64).prop_map(Step::Pass),
    ]
}

/// The world after all steps, and everything that was asked of rooms.
fn live(steps: &[Step]) -> World {
    let mut world = World::new();
    let clients: Vec<Client> = (3..=6).map(|user| world.client(user)).collect();
    let mut tokens: Vec<Invitation> = Vec::new();
    for step in steps {
        match step {
            Step::Ask(client, channel) => {
                let guild = channel.starts_with('1').then_some(GUILD);
                world.ask_in(clients[*client], guild, channel);
            }
            Step::Connect(index) if !tokens.is_empty() => {
                let token = tokens[index % tokens.len()].clone();
                world.connect(&token);
            }
            Step::Break(index) if !tokens.is_empty() => {
                let token = tokens[index % tokens.len()].clone();
                world.disconnect(&token);
            }
            Step::Connect(_) | Step::Break(_) => {}
            Step::Leave(client) => world.state(clients[*client], json!({"guild_id": null, "channel_id": null})),
            Step::Moderate(user, moderation) => {
                let (now, actor) = (world.now, Actor::User(UserId(2)));
                let _ = world
                    .voice
                    .moderate(now, actor, GuildId(900), UserId(*user), moderation);
            }
            Step::Speech(may) => {
                let permissions = if *may { EVERYONE } else { EVERYONE & !SPEAK };
                world.sync(vec![
                    json!({"kind": "role", "guild_id": GUILD, "id": GUILD, "permissions": permissions.to_string()}),
                ]);
            }
            Step::Kick(user) => world.sync(vec![member(*user, json!({"deleted": true}))]),
            Step::Return(user) => world.sync(vec![member(*user, json!({}))]),
            Step::Timeout(user) => {
                let until = world.now.0 + 20_000;
                world.sync(vec![member(*user, json!({"communication_disabled_until": until}))]);
            }
            Step::Region(region) => {
                let (now, region) = (world.now, region.map(str::to_owned));
                let _ = world.voice.set_region(now, UserId(2), ChannelId(10), region);
            }
            Step::Empty(index) => {
                let empty: Vec<Place> = world
                    .rooms
                    .iter()
                    .filter(|(_, room)| room.is_empty())
                    .map(|(place, _)| place.clone())
                    .collect();
                if let Some(place) = empty.get(index % empty.len().max(1)) {
                    world.finish(place);
                }
            }
            Step::Pass(seconds) => world.seconds(*seconds),
        }
        world.settle();
        for client in &clients {
            tokens.extend(world.invitations(*client));
        }
        nobody_may_more_than_they_should(&world);
    }
    world
}

fn nobody_may_more_than_they_should(world: &World) {
    for (place, room) in &world.rooms {
        for (identity, there) in room {
            let (_, id) = parse_identity(identity).unwrap();
            let Some(known) = world.voice.states().find(&id).filter(|known| known.server == place.0) else {
                continue;
            };
            let may = MediaGrant::live(known.rights, known.mute, known.deaf);
            for source in &there.sources {
                assert!(may.sources().contains(source), "{identity} may {source}");
            }
            assert!(may.subscribe || !there.subscribe, "{identity} hears");
        }
    }
}

/// Everybody whom the domain shows, and everybody who is connected, as they are called in their rooms.
fn shown_and_there(world: &World) -> (Vec<String>, Vec<String>) {
    let name = |server: &ServerKey, identity: &str| format!("{}/{}/{identity}", server.region, server.server);
    let mut shown: Vec<String> = world
        .voice
        .states()
        .all()
        .map(|known| name(&known.server, &identity(known.user, &known.id)))
        .collect();
    let rooms = world.rooms.iter();
    let mut there: Vec<String> = rooms
        .flat_map(|((server, _), room)| room.keys().map(move |who| name(server, who)))
        .collect();
    shown.sort();
    there.sort();
    (shown, there)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn who_is_shown_is_there_and_who_is_there_is_shown(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = live(&steps);
        // Every grace is over, and every room has been looked at.
        world.seconds(180);
        let (shown, there) = shown_and_there(&world);
        prop_assert_eq!(shown, there);
        nobody_may_more_than_they_should(&world);
        let mut again = live(&steps);
        again.seconds(180);
        prop_assert_eq!(&world.asked, &again.asked);
        prop_assert_eq!(&world.kept, &again.kept);
    }
}
