//! Who is told of what happens: a durable outbox for each receiver, and what is sent from it.
//!
//! The journal is the only source. An outbox is a place in it (`outbox`), kept in `state/outbox/`; the text of an event is
//! made anew from its record at every attempt (`events`), so a retry after a crash says the same under the same id.
//! Receivers are told at least once. Nothing here is waited for by a call.

mod attempt;
mod events;
mod mail;
mod outbox;
mod receivers;
pub mod slack;
mod webhook;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::call::{Digest, Fault};
use crate::clock::Clock;
use crate::config::NotifyRule;
use crate::snapshot::Snapshots;
use crate::store::{CallRecord, News, Store};
use crate::tasks;
use crate::telemetry::Metrics;

use self::outbox::{Outbox, Which};

const BEAT: Duration = Duration::from_millis(200);
/// Records that are read at a time, and how often so many between two beats: more than a busy proxy writes.
const READ: u64 = 512;
const READS: usize = 16;
/// Events that are sent to one receiver between two beats.
const SENDS: usize = 64;
/// An outbox that has merely read on is kept again after so many records; read again, they say the same.
const UNKEPT: u64 = 10_000;

/// What approvers must have seen of a call before they decide, in visible characters: as the page shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What will be sent, a line for each part.
    pub sent: Vec<String>,
    /// What it will change, and how sure that is.
    pub changes: Vec<String>,
    /// Why it was held.
    pub why: Vec<String>,
    /// What the proxy is unsure about.
    pub doubts: Vec<String>,
    /// This is all of it.
    pub whole: bool,
}

/// Looks at a call as approvers see it.
pub type Look = Arc<dyn Fn(CallRecord) -> BoxFuture<'static, Seen> + Send + Sync>;

/// The outboxes of one process.
pub struct Notifier {
    look: Look,
    store: Arc<Store>,
    snapshots: Arc<Snapshots>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    dir: PathBuf,
    receivers: Mutex<BTreeMap<String, Arc<Receiver>>>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Notifier({})", self.dir.display())
    }
}

/// One receiver's outbox, in memory and on the disk.
#[derive(Debug)]
struct Receiver {
    path: PathBuf,
    outbox: Mutex<Outbox>,
    /// How far it was read when it was last kept.
    kept: AtomicU64,
    /// One task at a time sends.
    sending: tokio::sync::Mutex<()>,
    saving: tokio::sync::Mutex<()>,
}

impl Receiver {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn save(&self) -> Result<(), Fault> {
        let _one = self.saving.lock().await;
        let (path, copy) = (self.path.clone(), self.outbox().clone());
        let next = copy.next;
        let written = tokio::task::spawn_blocking(move || write(&path, &copy)).await;
        let written = written.map_err(|e| Fault::caused("an outbox could not be kept", e))?;
        written.map_err(|e| Fault::caused("an outbox could not be kept", e))?;
        self.kept.store(next, Ordering::Relaxed);
        Ok(())
    }
}

/// Whole or not at all, and on the disk.
fn write(path: &Path, outbox: &Outbox) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(outbox)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// A number between 0 and 1.
fn chance() -> f64 {
    let mut byte = [128u8];
    let drawn = aws_lc_rs::rand::fill(&mut byte).is_ok();
    if drawn { f64::from(byte[0]) / 255.0 } else { 0.5 }
}

/// The name of an event for receivers, which know by it what they were told already.
fn id_of(which: Which, hash: &Digest) -> String {
    let hash: String = hash.to_string().chars().skip("sha256:".len()).take(16).collect();
    format!("evt_{}_{}_{hash}", which.seq, which.n)
}

fn read_id(text: &str) -> Option<Which> {
    let mut parts = text.strip_prefix("evt_")?.split('_');
    Some(Which { seq: parts.next()?.parse().ok()?, n: parts.next()?.parse().ok()? })
}

impl Notifier {
    /// Outboxes in this state directory; those of the configuration in force begin now, if they have not before.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn open(
        state: &Path,
        store: Arc<Store>,
        snapshots: Arc<Snapshots>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        look: Look,
    ) -> Result<Arc<Self>, Fault> {
        let dir = state.join("outbox");
        fs::create_dir_all(&dir).map_err(|e| Fault::caused("no folder for outboxes", e))?;
        let notifier = Arc::new(Self { look, store, snapshots, clock, metrics, dir, receivers: Mutex::default() });
        for rule in &notifier.snapshots.current().config.notify {
            notifier.receiver(rule)?;
        }
        Ok(notifier)
    }

    /// Tells receivers until told to stop.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                changed = stop.changed() => if changed.is_err() || *stop.borrow() { break },
            }
            for rule in &self.snapshots.current().config.notify {
                tasks::spawn(Arc::clone(&self).tend(Arc::clone(rule)));
            }
        }
        let all: Vec<_> = self.receivers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for receiver in all {
            if let Err(fault) = receiver.save().await {
                tracing::warn!(fault = %fault.chain(), "an outbox begins again where it was kept last");
            }
        }
    }

    async fn tend(self: Arc<Self>, rule: Arc<NotifyRule>) {
        let tended = async {
            let receiver = self.receiver(&rule)?;
            let Ok(_one) = receiver.sending.try_lock() else { return Ok(()) };
            self.take_in(&rule, &receiver).await?;
            self.send(&rule, &receiver).await
        };
        if let Err(fault) = tended.await {
            tracing::error!(fault = %fault.chain(), receiver = rule.name, "a receiver of notifications could not be tended");
        }
    }

    /// The outbox of a receiver; a new one begins with what happens from now on.
    fn receiver(&self, rule: &NotifyRule) -> Result<Arc<Receiver>, Fault> {
        if let Some(known) = self.known(&rule.name) {
            return Ok(known);
        }
        let path = self.dir.join(format!("{}.json", rule.name));
        let newest = self.store.span().1;
        let begin = Outbox { next: newest + 1, ..Outbox::default() };
        let kept: Option<Outbox> = match fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|e| {
                Fault::caused(
                    "an outbox is damaged; move its file away to begin anew",
                    format!("{}: {e}", path.display()),
                )
            })?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Fault::caused("an outbox cannot be read", e)),
        };
        let is_new = kept.is_none();
        let mut outbox = kept.unwrap_or(begin);
        if outbox.next > newest + 1 {
            tracing::error!(receiver = rule.name, "the journal is older than this outbox: a backup was restored");
            outbox.next = newest + 1;
        }
        let receiver = Receiver {
            path,
            kept: AtomicU64::new(outbox.next),
            outbox: Mutex::new(outbox),
            sending: tokio::sync::Mutex::default(),
            saving: tokio::sync::Mutex::default(),
        };
        if is_new {
            write(&receiver.path, &receiver.outbox()).map_err(|e| Fault::caused("an outbox could not be kept", e))?;
        }
        let mut all = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(all.entry(rule.name.clone()).or_insert_with(|| Arc::new(receiver))))
    }

    fn known(&self, name: &str) -> Option<Arc<Receiver>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    async fn told(&self, seq: u64) -> Result<Option<News>, Fault> {
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || store.told(seq)).await;
        read.map_err(|e| Fault::caused("a record could not be read", e))?
    }

    /// Reads on in the journal; what the receiver wants waits, durably, before it is sent.
    async fn take_in(&self, rule: &Arc<NotifyRule>, receiver: &Receiver) -> Result<(), Fault> {
        let (first, newest) = self.store.span();
        let mut wanted = false;
        for _ in 0..READS {
            let next = receiver.outbox().next;
            if next > newest || !receiver.outbox().has_room() {
                break;
            }
            if next < first {
                tracing::error!(receiver = rule.name, from = next, to = first, "retention took what was not told");
                receiver.outbox().next = first;
                continue;
            }
            for (seq, events) in self.wanted(rule, next..=newest.min(next + READ)).await? {
                wanted |= !events.is_empty();
                receiver.outbox().take_in(seq, events, self.clock.now());
            }
        }
        let unkept = receiver.outbox().next.saturating_sub(receiver.kept.load(Ordering::Relaxed));
        if wanted || unkept >= UNKEPT { receiver.save().await } else { Ok(()) }
    }

    /// Which events of these records the receiver wants.
    async fn wanted(
        &self,
        rule: &Arc<NotifyRule>,
        records: RangeInclusive<u64>,
    ) -> Result<Vec<(u64, Vec<(usize, Option<Duration>)>)>, Fault> {
        let (store, rule) = (Arc::clone(&self.store), Arc::clone(rule));
        let of = move |seq: u64| {
            let events = store.told(seq)?.map(|news| events::of(&news, None)).unwrap_or_default();
            let wanted = events.iter().enumerate().filter(|(_, e)| rule.wants(e.name, e.tier));
            Ok((seq, wanted.map(|(n, e)| (n, rule.gathers(e.name, e.tier))).collect()))
        };
        let read = tokio::task::spawn_blocking(move || records.map(of).collect()).await;
        read.map_err(|e| Fault::caused("records could not be read", e))?
    }

    async fn send(&self, rule: &NotifyRule, receiver: &Receiver) -> Result<(), Fault> {
        for _ in 0..SENDS {
            let due = receiver.outbox().due(self.clock.now());
            if due.is_empty() {
                break;
            }
            let done = self.attempt(rule, receiver, &due).await;
            let now = self.clock.now();
            let result = match done {
                Ok(()) => {
                    receiver.outbox().delivered(&due, now);
                    "delivered"
                }
                Err(failed) => {
                    tracing::warn!(receiver = rule.name, why = failed.why, "a receiver could not be told");
                    if receiver.outbox().failed(&due, &failed, now, chance()) { "dead" } else { "failed" }
                }
            };
            self.metrics.notifications.with_label_values(&[rule.channel.kind(), result]).inc();
            receiver.save().await?;
        }
        Ok(())
    }
}
