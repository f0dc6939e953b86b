//! Which request a client means that cancels one: ids are unique only within a session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A session, and the id of a request as the client wrote it.
type Name = (String, String);

/// Requests that may be cancelled, by the names that their clients gave them.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancels(Arc<Mutex<HashMap<Name, u64>>>);

/// A request has its name until it is answered.
#[derive(Debug)]
pub(super) struct Named {
    all: Cancels,
    name: Name,
    ours: u64,
}

impl Cancels {
    pub(super) fn name(&self, session: &str, id: &str, ours: u64) -> Named {
        let name = (session.to_owned(), id.to_owned());
        self.lock().insert(name.clone(), ours);
        Named { all: self.clone(), name, ours }
    }

    pub(super) fn find(&self, session: &str, id: &str) -> Option<u64> {
        self.lock().get(&(session.to_owned(), id.to_owned())).copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // A client that uses an id twice means the later one.
        if all.get(&self.name) == Some(&self.ours) {
            all.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_one_request_of_one_session_while_it_is_under_way() {
        let all = Cancels::default();
        let first = all.name("s", "7", 1);
        let other = all.name("t", "7", 2);
        assert_eq!((all.find("s", "7"), all.find("t", "7"), all.find("s", "\"7\"")), (Some(1), Some(2), None));
        let again = all.name("s", "7", 3);
        drop(first);
        assert_eq!(all.find("s", "7"), Some(3));
        drop((again, other));
        assert!(all.lock().is_empty());
    }
}
