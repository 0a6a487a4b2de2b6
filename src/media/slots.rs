//! Generational slots: what commands name by handle is reached on the packet path by index.
//!
//! Owns nothing but the values put in it. A `Slot` outlives its value harmlessly: the generation no longer matches and
//! every look-up misses, so a queued descriptor or an armed timer can never reach a stranger.

/// A place in a `Slots`, valid for one value's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    index: u32,
    generation: u32,
}

impl Slot {
    /// Nothing is ever here.
    pub const NOWHERE: Self = Self {
        index: u32::MAX,
        generation: 0,
    };
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// O(1) insert, look-up and removal; memory follows the largest number of values ever held at once.
#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    pub fn insert(&mut self, value: T) -> Slot {
        self.insert_with(|_| value)
    }

    /// For a value that knows its own place.
    pub fn insert_with(&mut self, value: impl FnOnce(Slot) -> T) -> Slot {
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            let slot = Slot {
                index,
                generation: place.generation,
            };
            place.value = Some(value(slot));
            return slot;
        }
        let slot = Slot {
            index: self.places.len() as u32,
            generation: 0,
        };
        self.places.push(Place {
            generation: 0,
            value: Some(value(slot)),
        });
        slot
    }

    pub fn get(&self, slot: Slot) -> Option<&T> {
        let place = self.places.get(slot.index as usize)?;
        place.value.as_ref().filter(|_| place.generation == slot.generation)
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        let place = self.places.get_mut(slot.index as usize)?;
        place.value.as_mut().filter(|_| place.generation == slot.generation)
    }

    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        let place = self.places.get_mut(slot.index as usize)?;
        if place.generation != slot.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot.index);
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let slot = Slot {
                index: index as u32,
                generation: place.generation,
            };
            Some((slot, place.value.as_ref()?))
        })
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut T)> {
        self.places.iter_mut().enumerate().filter_map(|(index, place)| {
            let slot = Slot {
                index: index as u32,
                generation: place.generation,
            };
            Some((slot, place.value.as_mut()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_misses_once_its_value_has_gone() {
        let mut slots = Slots::default();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }
}
