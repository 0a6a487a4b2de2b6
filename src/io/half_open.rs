//! Who may be half-open at a TCP port: connections that have not shown yet what they are.
//!
//! Bounded in all and for each network. Where there is no room the oldest gives way: an honest client says what it is a
//! round trip after it has connected, one that holds a place to hold it does not.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Of all networks together; each costs a descriptor and some 10 KiB.
pub(super) const MAX_HALF_OPEN: usize = 1024;
/// Of one network (/24, /56): an attacker must not have them all, and a company that joins at once must fit.
pub(super) const MAX_HALF_OPEN_PER_NETWORK: usize = 256;

#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    inner: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Oldest first.
    by_network: HashMap<IpAddr, VecDeque<Waiter>>,
    total: usize,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// Dropped to say that it must give way.
    _stay: oneshot::Sender<()>,
}

/// One half-open connection; gives its place back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<HalfOpen>,
    network: IpAddr,
    number: u64,
    stay: oneshot::Receiver<()>,
}

impl HalfOpen {
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let network = network(address);
        let (sender, stay) = oneshot::channel();
        // Counters only, never held across an await; a panic elsewhere cannot leave them half changed.
        let mut waiting = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.of(network) >= MAX_HALF_OPEN_PER_NETWORK {
            waiting.send_oldest_away(network);
        } else if waiting.total >= MAX_HALF_OPEN
            && let Some(fullest) = waiting.fullest()
        {
            waiting.send_oldest_away(fullest);
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.total += 1;
        let waiter = Waiter { number, _stay: sender };
        waiting.by_network.entry(network).or_default().push_back(waiter);
        Place {
            of: Arc::clone(self),
            network,
            number,
            stay,
        }
    }

    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        self.inner.lock().unwrap().total
    }
}

impl Waiting {
    fn of(&self, network: IpAddr) -> usize {
        self.by_network.get(&network).map_or(0, VecDeque::len)
    }

    fn fullest(&self) -> Option<IpAddr> {
        let fullest = self.by_network.iter().max_by_key(|(_, waiters)| waiters.len());
        fullest.map(|(network, _)| *network)
    }

    fn send_oldest_away(&mut self, network: IpAddr) {
        let oldest = self.by_network.get(&network).and_then(VecDeque::front);
        if let Some(number) = oldest.map(|waiter| waiter.number) {
            self.remove(network, number);
        }
    }

    fn remove(&mut self, network: IpAddr, number: u64) {
        let Some(waiters) = self.by_network.get_mut(&network) else {
            return;
        };
        if let Ok(at) = waiters.binary_search_by_key(&number, |waiter| waiter.number) {
            waiters.remove(at);
            self.total -= 1;
        }
        if waiters.is_empty() {
            self.by_network.remove(&network);
        }
    }
}

impl Place {
    /// Waits until another needs the place.
    pub(super) async fn needed(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        let _ = (&mut self.stay).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.of.inner.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(self.network, self.number);
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4) & !0xff).to_be_bytes()),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 72 << 72).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sent_away(place: &mut Place) -> bool {
        place.stay.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_oldest_of_a_full_network_gives_way() {
        let open = Arc::new(HalfOpen::default());
        let mut places: Vec<Place> = (0..10_000u32)
            .map(|index| open.enter(IpAddr::from([192, 0, 2, index as u8])))
            .collect();
        assert_eq!(open.total(), MAX_HALF_OPEN_PER_NETWORK);
        let left: Vec<bool> = places.iter_mut().map(is_sent_away).collect();
        let (old, new) = left.split_at(places.len() - MAX_HALF_OPEN_PER_NETWORK);
        assert!(old.iter().all(|away| *away) && new.iter().all(|away| !away));
        drop(places);
        assert_eq!(open.total(), 0);
        assert!(open.inner.lock().unwrap().by_network.is_empty());
    }

    #[test]
    fn the_fullest_network_makes_room_for_another() {
        let open = Arc::new(HalfOpen::default());
        let mut one = open.enter("198.51.100.1".parse().unwrap());
        // Many networks of an attacker, each nearly full.
        let attack = (0..20u8).flat_map(|net| (0..200).map(move |_| IpAddr::from([10, net, 0, 1])));
        let attackers: Vec<Place> = attack.map(|address| open.enter(address)).collect();
        assert_eq!(open.total(), MAX_HALF_OPEN);
        assert!(!is_sent_away(&mut one), "the only one of its network");
        let mut another = open.enter("2001:db8::1".parse().unwrap());
        assert_eq!(open.total(), MAX_HALF_OPEN);
        assert!(!is_sent_away(&mut another));
        drop((one, attackers, another));
        assert_eq!(open.total(), 0);
    }

    #[test]
    fn networks_are_of_24_and_56_bits() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.77"), "192.0.2.0");
        assert_eq!(of("::ffff:192.0.2.77"), "192.0.2.0");
        assert_eq!(of("2001:db8:1:2ff:3::4"), "2001:db8:1:200::");
    }
}
