//! Who is told of what happens: a durable outbox for each receiver, and what is sent from it.
//!
//! The journal is the only source. An outbox is a place in it (`outbox`), kept in `state/outbox/`; the text of an event is
//! made anew from its record at every attempt (`events`), so a retry after a crash says the same under the same id.
//! Receivers are told at least once. Nothing here is waited for by a call.

mod events;
mod outbox;
mod webhook;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::call::{Digest, Fault};
use crate::clock::Clock;
use crate::config::{Channel, NotifyRule};
use crate::gates::upstream::exchange;
use crate::snapshot::Snapshots;
use crate::store::{News, Store};
use crate::tasks;
use crate::telemetry::Metrics;

use self::events::Event;
use self::outbox::{Failed, Item, Outbox, Which};

const BEAT: Duration = Duration::from_millis(200);
/// Records that are read at a time, and how often so many between two beats: more than a busy proxy writes.
const READ: u64 = 512;
const READS: usize = 16;
/// Events that are sent to one receiver between two beats.
const SENDS: usize = 64;
/// An outbox that has merely read on is kept again after so many records; read again, they say the same.
const UNKEPT: u64 = 10_000;

/// The outboxes of one process.
#[derive(Debug)]
pub struct Notifier {
    store: Arc<Store>,
    snapshots: Arc<Snapshots>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    dir: PathBuf,
    receivers: Mutex<BTreeMap<String, Arc<Receiver>>>,
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
    ) -> Result<Arc<Self>, Fault> {
        let dir = state.join("outbox");
        fs::create_dir_all(&dir).map_err(|e| Fault::caused("no folder for outboxes", e))?;
        let notifier = Arc::new(Self { store, snapshots, clock, metrics, dir, receivers: Mutex::default() });
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
    ) -> Result<Vec<(u64, Vec<usize>)>, Fault> {
        let (store, rule) = (Arc::clone(&self.store), Arc::clone(rule));
        let of = move |seq: u64| {
            let events = store.told(seq)?.map(|news| events::of(&news, None)).unwrap_or_default();
            let wanted = events.iter().enumerate().filter(|(_, e)| rule.wants(e.name, e.tier)).map(|(n, _)| n);
            Ok((seq, wanted.collect()))
        };
        let read = tokio::task::spawn_blocking(move || records.map(of).collect()).await;
        read.map_err(|e| Fault::caused("records could not be read", e))?
    }

    async fn send(&self, rule: &NotifyRule, receiver: &Receiver) -> Result<(), Fault> {
        for _ in 0..SENDS {
            let Some(which) = receiver.outbox().due(self.clock.now()).first().copied() else { break };
            let done = self.attempt(rule, which).await;
            let now = self.clock.now();
            let result = match done {
                Ok(()) => {
                    receiver.outbox().delivered(which, now);
                    "delivered"
                }
                Err(failed) => {
                    tracing::warn!(receiver = rule.name, why = failed.why, "a receiver could not be told");
                    if receiver.outbox().failed(which, failed, now, chance()) { "dead" } else { "failed" }
                }
            };
            self.metrics.notifications.with_label_values(&[rule.channel.kind(), result]).inc();
            receiver.save().await?;
        }
        Ok(())
    }

    async fn attempt(&self, rule: &NotifyRule, which: Which) -> Result<(), Failed> {
        let ours = |fault: Fault| Failed { why: fault.chain(), for_good: false };
        let gone = || Failed { why: "its record is not kept any more".into(), for_good: true };
        let news = self.told(which.seq).await.map_err(ours)?.ok_or_else(gone)?;
        let page = self.snapshots.current().config.reviews.url.clone();
        let event = events::of(&news, page.as_deref()).into_iter().nth(which.n).ok_or_else(gone)?;
        let body = json!({"type": event.name, "timestamp": news.at.to_string(), "data": event.data}).to_string();
        let Channel::Webhook(to) = &rule.channel;
        let request = webhook::request(to, &id_of(which, &news.hash), Bytes::from(body), self.clock.now());
        let answer = exchange(request.map_err(ours)?, Arc::clone(&self.clock)).await;
        webhook::judged(answer.map_err(ours)?.status())
    }

    /// Each receiver of the configuration in force: how far it was told, what waits, what was given up.
    ///
    /// # Errors
    /// When an outbox cannot be read.
    pub async fn list(&self) -> Result<Vec<Value>, Fault> {
        let mut all = Vec::new();
        for rule in &self.snapshots.current().config.notify {
            let receiver = self.receiver(rule)?;
            let outbox = receiver.outbox().clone();
            let behind = (self.store.span().1 + 1).saturating_sub(outbox.next);
            all.push(json!({
                "name": rule.name,
                "to": rule.channel.to(),
                "events": rule.events,
                "records_behind": behind,
                "waiting": self.items(&outbox.waiting, "due").await,
                "dead": self.items(&outbox.dead, "since").await,
            }));
        }
        Ok(all)
    }

    async fn items(&self, items: &[Item], at: &str) -> Vec<Value> {
        let mut all = Vec::new();
        for item in items.iter().take(100) {
            let news = self.told(item.which.seq).await.ok().flatten();
            let event: Option<Event> = news.as_ref().and_then(|n| events::of(n, None).into_iter().nth(item.which.n));
            let id = news.as_ref().map(|n| id_of(item.which, &n.hash));
            let mut shown = json!({"id": id, "type": event.map(|e| e.name), "attempts": item.tries, "why": item.why});
            shown.as_object_mut().and_then(|s| s.insert(at.to_owned(), json!(item.due.to_string())));
            all.push(shown);
        }
        all
    }

    /// Tells a receiver again: these events, or all that were given up. Gives how many; nothing when there is no such
    /// receiver, or an id is none.
    ///
    /// # Errors
    /// When the outbox cannot be kept: then nothing is told.
    pub async fn replay(&self, name: &str, ids: Option<&[String]>) -> Result<Option<usize>, Fault> {
        let current = self.snapshots.current();
        let Some(rule) = current.config.notify.iter().find(|r| r.name == name) else { return Ok(None) };
        let receiver = self.receiver(rule)?;
        let newest = self.store.span().1;
        let wanted: Option<Vec<Which>> = match ids {
            Some(ids) => ids.iter().map(|id| read_id(id).filter(|w| w.seq <= newest)).collect(),
            None => Some(receiver.outbox().dead.iter().map(|i| i.which).collect()),
        };
        let Some(wanted) = wanted else { return Ok(None) };
        let count = receiver.outbox().replay(&wanted, self.clock.now());
        receiver.save().await?;
        Ok(Some(count))
    }
}
