//! What has changed since it was last written down elsewhere.

use std::collections::BTreeSet;

/// Names of what has changed; as many as there are, or were, things to change. Remembers nothing before `begin`.
#[derive(Clone, Debug)]
pub(super) struct Marks<T> {
    changed: Option<BTreeSet<T>>,
}

impl<T> Default for Marks<T> {
    fn default() -> Self {
        Self { changed: None }
    }
}

impl<T: Ord + Clone> Marks<T> {
    pub fn begin(&mut self) {
        self.changed = Some(BTreeSet::new());
    }

    pub fn mark(&mut self, what: &T) {
        if let Some(changed) = &mut self.changed
            && !changed.contains(what)
        {
            changed.insert(what.clone());
        }
    }

    pub fn take(&mut self) -> BTreeSet<T> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
