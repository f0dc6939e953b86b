//! Places where crash tests kill this process: before and after every durable step, and around every send.
//!
//! Without the feature `failpoints` nothing of it is in the binary. With it, `HOLDPOINT_FAILPOINT="conclude.before:3"`
//! means: the third time this point is reached, SIGKILL. No destructor runs and nothing is flushed, as in a real death.
//! `write.before:3:30` stands still for 30 ms first, so that whoever does not wait for the disk has time to say so.

/// Every point there is. A test keeps this list and the calls in the code the same.
pub const ALL: &[&str] = &[
    // Steps of the store: asked, in the queue but perhaps not on the disk, on the disk but told to nobody.
    "park.before",
    "parked.queued",
    "park.durable",
    "begin.before",
    "begun.queued",
    "begin.durable",
    "again.before",
    "begun_again.queued",
    "again.durable",
    "read.before",
    "found.queued",
    "not_found.queued",
    "read.durable",
    "conclude.before",
    "concluded.queued",
    "conclude.durable",
    "reconcile.before",
    "opined.queued",
    "reconciled.queued",
    "reconcile.durable",
    "vote.before",
    "voted.queued",
    "approved.queued",
    "vote.durable",
    "approved.durable",
    "reject.before",
    "rejected.queued",
    "reject.durable",
    "withdraw.before",
    "withdrawn.queued",
    "withdraw.durable",
    "edit.before",
    "edited.queued",
    "edit.durable",
    "renew.before",
    "renewed.queued",
    "renew.durable",
    "revoke.before",
    "revoked.queued",
    "revoke.durable",
    "wait.before",
    "waiting.queued",
    "wait.durable",
    "handle.before",
    "claimed.queued",
    "unclaimed.queued",
    "commented.queued",
    "evidence_asked.queued",
    "escalated.queued",
    "handle.durable",
    "pause.before",
    "paused.queued",
    "halted.queued",
    "pause.durable",
    "lift.before",
    "resumed.queued",
    "continued.queued",
    "lift.durable",
    "attach.before",
    "attached.queued",
    "attach.durable",
    "expiring.queued",
    "expiring.durable",
    "expire.before",
    "expired.queued",
    "expire.durable",
    "collected.before",
    "collected.queued",
    "top_up.before",
    "topped_up.queued",
    "top_up.durable",
    "note.before",
    "note.queued",
    "note.durable",
    "artifact.before",
    "artifact.queued",
    "artifact.durable",
    // The journal's writer.
    "write.before",
    "write.torn",
    "write.after",
    "sync.after",
    "wake.after",
    "rotate.before",
    "rotate.closed",
    "rotate.file",
    "rotate.created",
    // The indexer.
    "index.before",
    "index.applied",
    "index.sync",
    "index.synced",
    // Checkpoints and retention.
    "sign.before",
    "sign.written",
    "shorten.forgotten",
    "shorten.noted",
    "shorten.removed",
    "shorten.stripped",
    // The send.
    "send.connect",
    "send.connected",
    "send.request",
    "send.handed",
    "send.head",
    "send.answer",
    "flow.last",
    "resume.before",
    "tell.before",
    // The start.
    "open.locked",
    "open.aside",
    "open.replayed",
    "open.started",
    "recover.epoch",
    "died.queued",
    "recover.record",
    "recover.done",
    "serve.opened",
    "serve.listening",
    // The end in order.
    "stop.drained",
    "close.before",
    "close.recorded",
    "close.signed",
    "close.synced",
];

/// Dies here if this is the chosen point and the chosen time.
#[inline]
pub fn hit(name: &str) {
    #[cfg(feature = "failpoints")]
    chosen::hit(name, || {});
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

/// The same, but leaves something half done first.
#[inline]
pub fn hit_with(name: &str, half: impl FnOnce()) {
    #[cfg(feature = "failpoints")]
    chosen::hit(name, half);
    #[cfg(not(feature = "failpoints"))]
    let _ = (name, half);
}

/// The same on the way of a value.
#[inline]
pub fn after<T>(name: &str, value: T) -> T {
    hit(name);
    value
}

/// A number that only crash tests set, so that a short run sees what else takes hours: `HOLDPOINT_SEGMENT_BYTES`,
/// `HOLDPOINT_BEAT_MS`, `HOLDPOINT_SIGN_BEATS`, `HOLDPOINT_SHORTEN_BEATS`, `HOLDPOINT_KEEP_MS`.
#[must_use]
pub fn setting(name: &str) -> Option<u64> {
    #[cfg(feature = "failpoints")]
    return std::env::var(name).ok()?.parse().ok();
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = name;
        None
    }
}

#[cfg(feature = "failpoints")]
mod chosen {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::time::Duration;

    struct Chosen {
        name: String,
        left: AtomicU64,
        linger: Duration,
    }

    static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();

    fn read() -> Option<Chosen> {
        let text = std::env::var("HOLDPOINT_FAILPOINT").ok()?;
        let mut parts = text.split(':');
        let (name, left) = (parts.next()?.to_owned(), AtomicU64::new(parts.next()?.parse().ok()?));
        let linger = Duration::from_millis(parts.next().map_or(Some(0), |ms| ms.parse().ok())?);
        Some(Chosen { name, left, linger })
    }

    pub(super) fn hit(name: &str, half: impl FnOnce()) {
        let Some(chosen) = CHOSEN.get_or_init(read) else { return };
        if chosen.name == name && chosen.left.fetch_sub(1, SeqCst) == 1 {
            half();
            std::thread::sleep(chosen.linger);
            die();
        }
    }

    fn die() {
        let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        tracing::error!(?killed, "this process outlived its own death");
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::ALL;

    fn sources(dir: &Path, out: &mut String) {
        for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let own = path.ends_with("failpoint.rs");
                out.push_str(if own { "" } else { text.split("#[cfg(test)]\nmod tests").next().unwrap() });
            }
        }
    }

    #[test]
    fn the_list_is_what_the_code_names() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let mut named = BTreeSet::new();
        for call in text.split("failpoint::").skip(1).filter(|c| c.starts_with("hit") || c.starts_with("after")) {
            named.insert(call.split('"').nth(1).unwrap());
        }
        named
            .extend(text.split("=> \"").skip(1).filter_map(|s| s.split('"').next()).filter(|n| n.ends_with(".queued")));
        let listed: BTreeSet<&str> = ALL.iter().copied().collect();
        assert_eq!(listed.len(), ALL.len(), "a name stands in the list twice");
        assert_eq!(named, listed);
    }
}
