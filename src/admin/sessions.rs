//! Who is signed in on the page: in memory only, bound to a reviewer of the configuration in force.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use crate::call::{Digest, Fault};

use super::who::Account;

const LIFE: Duration = Duration::from_secs(8 * 3600);
const IDLE: Duration = Duration::from_secs(3600);
/// One reviewer's sessions; the oldest goes when one more begins. With the configured reviewers this bounds them all.
const PER_REVIEWER: usize = 16;

#[derive(Debug, Clone)]
struct Session {
    /// What signed in; whether it still counts is asked of the configuration in force, every time.
    account: Account,
    csrf: String,
    created: Instant,
    used: Instant,
}

/// The sessions of this process, by the digest of their id.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<Digest, Session>>);

/// A session that is in force.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) account: Account,
    /// Stands in every form.
    pub(super) csrf: String,
}

impl Live {
    pub(super) fn wrote(&self, csrf: &str) -> bool {
        let (ours, theirs) = (Digest::of(self.csrf.as_bytes()), Digest::of(csrf.as_bytes()));
        bool::from(ours.as_bytes().ct_eq(theirs.as_bytes()))
    }
}

/// 256 random bits in hex.
pub(super) fn random() -> Result<String, Fault> {
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|e| Fault::caused("no random bytes", e))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one; gives the id for the cookie. Only its digest is kept.
    pub(super) fn begin(&self, account: Account, now: Instant) -> Result<String, Fault> {
        let (id, csrf) = (random()?, random()?);
        let mut all = self.lock();
        all.retain(|_, s| s.lives(now));
        let mut own: Vec<(Instant, Digest)> =
            all.iter().filter(|(_, s)| s.account.is_of(&account)).map(|(d, s)| (s.used, *d)).collect();
        own.sort_unstable();
        let over = (own.len() + 1).saturating_sub(PER_REVIEWER);
        for (_, digest) in own.into_iter().take(over) {
            all.remove(&digest);
        }
        all.insert(Digest::of(id.as_bytes()), Session { account, csrf, created: now, used: now });
        Ok(id)
    }

    /// The session of this cookie, if it is in force; where a person is at work it then counts as used.
    pub(super) fn find(&self, id: &str, now: Instant, at_work: bool) -> Option<Live> {
        let digest = Digest::of(id.as_bytes());
        let mut all = self.lock();
        let session = all.get_mut(&digest)?;
        if !session.lives(now) {
            all.remove(&digest);
            return None;
        }
        if at_work {
            session.used = now;
        }
        Some(Live { account: session.account.clone(), csrf: session.csrf.clone() })
    }

    /// How many of this account are in force.
    pub(super) fn count(&self, account: &Account, now: Instant) -> usize {
        self.lock().values().filter(|s| s.lives(now) && s.account.is_of(account)).count()
    }

    /// Ends those of this account but for this one.
    pub(super) fn end_others(&self, id: &str, account: &Account) {
        let own = Digest::of(id.as_bytes());
        self.lock().retain(|digest, s| *digest == own || !s.account.is_of(account));
    }

    pub(super) fn end(&self, id: &str) {
        self.lock().remove(&Digest::of(id.as_bytes()));
    }
}

impl Session {
    fn lives(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.created) < LIFE && now.saturating_duration_since(self.used) < IDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Timestamp;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn a_session_ends_when_idle_when_old_and_when_told() {
        let (sessions, clock) = (Sessions::default(), ManualClock::at(Timestamp::default()));
        let who = Account::Token(Digest::of(b"maya"));
        let id = sessions.begin(who.clone(), clock.instant()).unwrap();
        assert_eq!(id.len(), 64);
        assert_eq!(sessions.find(&id, clock.instant(), true).unwrap().account, who);
        clock.advance(IDLE);
        assert!(sessions.find(&id, clock.instant(), true).is_none());
        let id = sessions.begin(who.clone(), clock.instant()).unwrap();
        for _ in 0..15 {
            clock.advance(IDLE / 2);
            assert!(sessions.find(&id, clock.instant(), true).is_some());
        }
        clock.advance(IDLE / 2);
        assert!(sessions.find(&id, clock.instant(), true).is_none(), "older than its life");
        let id = sessions.begin(who.clone(), clock.instant()).unwrap();
        sessions.end(&id);
        assert!(sessions.find(&id, clock.instant(), true).is_none());
    }

    #[test]
    fn sessions_are_bounded_per_reviewer() {
        let (sessions, clock) = (Sessions::default(), ManualClock::at(Timestamp::default()));
        let other = sessions.begin(Account::Token(Digest::of(b"li")), clock.instant()).unwrap();
        let all: Vec<String> = (0..40)
            .map(|_| {
                clock.advance(Duration::from_secs(1));
                sessions.begin(Account::Token(Digest::of(b"maya")), clock.instant()).unwrap()
            })
            .collect();
        assert_eq!(sessions.lock().len(), PER_REVIEWER + 1);
        assert!(sessions.find(&other, clock.instant(), true).is_some());
        assert!(sessions.find(all.last().unwrap(), clock.instant(), true).is_some());
        assert!(sessions.find(&all[0], clock.instant(), true).is_none());
    }
}
