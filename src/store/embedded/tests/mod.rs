//! The store on real files. `Bench::killed` is what a kill leaves: a copy of the files, opened again.

mod grants;
mod handling;
mod held_up;
mod life;
mod log;
mod pauses;
mod races;
mod recovery;
mod retention;
mod samples;
mod signed;
mod top_up;
mod trust;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Clock, ManualClock};
use crate::store::fixtures::{START, record, vote};
use crate::store::{
    AnswerBody, AuditNote, Balance, Begin, Begun, CallRecord, Charge, Conclusion, Known, LedgerKey, Park, Question,
    Resend, ResendBy, State,
};

use super::{Options, Recovery, Store};

type Dump = Vec<(Vec<u8>, Vec<u8>)>;

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Option<Store>,
    recovery: Recovery,
    options: Options,
}

impl Bench {
    fn new() -> Self {
        Self::with(Options { preallocate: 4096, ..Options::default() })
    }

    fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(START));
        let (store, recovery) = Store::open(dir.path(), clock.clone(), options.clone()).unwrap();
        Self { dir, clock, store: Some(store), recovery, options }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// What a kill leaves: the files as they are now, without any shutdown.
    fn killed(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        let clock = Arc::new(ManualClock::at(self.clock.now()));
        let (store, recovery) = Store::open(dir.path(), clock.clone(), self.options.clone()).unwrap();
        Self { dir, clock, store: Some(store), recovery, options: self.options.clone() }
    }

    fn reopen(&mut self) {
        self.store = None;
        let (store, recovery) = Store::open(self.dir.path(), self.clock.clone(), self.options.clone()).unwrap();
        (self.store, self.recovery) = (Some(store), recovery);
    }

    fn known(&self, record: &CallRecord, key: Option<&str>) -> String {
        let question = Question { key, ..question(record) };
        match block(self.store().look_up(question)).unwrap() {
            Known::New => "new".into(),
            Known::Concluded(r) => format!("concluded {}", r.state.as_str()),
            Known::Held(r) => format!("held {}", r.state.as_str()),
            Known::InFlight(_) => "in flight".into(),
            Known::Over(r) => format!("over {}", r.state.as_str()),
            Known::Unknown(_) => "unknown".into(),
            Known::KeyReused(_) => "key reused".into(),
        }
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// Waits until the index has everything.
    fn indexed(&self) {
        block(wait_indexed(self.store()));
    }

    fn dump(&self) -> (String, Dump) {
        self.indexed();
        let image = self.store().inner.core.lock().unwrap().image();
        let index = self.store().inner.index.dump().into_iter().filter(|(k, _)| k != b"m" && k != b"s").collect();
        (
            serde_json::to_string(&image.calls).unwrap()
                + &serde_json::to_string(&image.ledgers).unwrap()
                + &serde_json::to_string(&image.tally).unwrap()
                + &serde_json::to_string(&image.grants).unwrap()
                + &serde_json::to_string(&image.samples).unwrap()
                + &serde_json::to_string(&image.denials).unwrap()
                + &serde_json::to_string(&image.decisions).unwrap()
                + &serde_json::to_string(&image.trusts).unwrap()
                + &serde_json::to_string(&image.pauses).unwrap(),
            index,
        )
    }
}

async fn wait_indexed(store: &Store) {
    let sent = store.inner.sent.load(Relaxed);
    store.inner.indexed.clone().wait_for(|done| *done >= sent).await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn question(r: &CallRecord) -> Question<'_> {
    Question {
        principal: &r.principal,
        operation: &r.operation,
        key: r.key.as_deref(),
        key_derived: r.key_derived,
        fingerprint: r.fingerprint,
    }
}

fn held(fingerprint: &str, key: Option<&str>) -> CallRecord {
    record(State::Held, fingerprint, key)
}

fn fresh(fingerprint: &str, key: Option<&str>) -> CallRecord {
    record(State::Dispatching, fingerprint, key)
}

/// A call that may be sent again.
fn declared(fingerprint: &str, key: Option<&str>) -> CallRecord {
    CallRecord { resend: Some(Resend { by: ResendBy::Header, attempts: 3 }), ..fresh(fingerprint, key) }
}

fn parking(record: CallRecord) -> Park {
    Park {
        record,
        body: Bytes::from_static(b"card=canary-4111"),
        arguments: Bytes::from_static(br#"{"card":"canary-4111"}"#),
        states: Bytes::new(),
        evidence: vec![],
        max_per_agent: 50,
        max_total: 100,
    }
}

fn beginning(record: CallRecord, charges: Vec<Charge>, release: bool) -> Begin {
    let (body, arguments) = (Bytes::from_static(b"canary-4111"), Bytes::from_static(b"{}"));
    Begin { record, body, arguments, states: Bytes::new(), charges, release }
}

fn ledger() -> LedgerKey {
    LedgerKey { scope: "org".into(), owner: "acme".into(), unit: "EUR".into(), window: None, every: None }
}

fn charge(amount: i64, limit: i64) -> Charge {
    Charge { ledger: ledger(), amount, limit }
}

fn conclusion(state: State) -> Conclusion {
    Conclusion {
        state,
        answer: Some((200, vec![("content-type".into(), "text/plain".into())])),
        body: AnswerBody::Kept(Bytes::from_static(b"canary-answer")),
        note: None,
    }
}

fn begin(b: &Bench, record: CallRecord) -> (Begun, CallRecord) {
    let (begun, record) = block(b.store().begin(beginning(record, vec![charge(10, 100)], false))).unwrap();
    (begun, (*record).clone())
}

fn run(b: &Bench, record: CallRecord, state: State) -> CallRecord {
    let (begun, _) = begin(b, record);
    block(b.store().conclude(begun, conclusion(state))).unwrap().as_ref().clone()
}

fn park(b: &Bench, record: CallRecord) -> CallRecord {
    block(b.store().park(parking(record))).unwrap()
}

fn approve(b: &Bench, r: &CallRecord) -> CallRecord {
    block(b.store().vote(vote(r, "eve", &["ops"]))).unwrap()
}

fn balance(b: &Bench) -> Balance {
    b.store().balances(&[ledger()]).unwrap()[0]
}

fn audit_note(kind: &str) -> AuditNote {
    AuditNote {
        kind: kind.into(),
        call: None,
        principal: None,
        agent: Some(("acme".into(), "bot".into())),
        run: Some("r1".into()),
        operation: None,
        code: None,
        more: Default::default(),
    }
}
