use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use crate::call::{ArtifactId, CallId, Digest, Tier};
use crate::clock::{Clock, ManualClock};
use crate::store::fixtures::{MINUTE, START, principal, record, terms, vote};
use crate::store::{
    AnswerBody, AuditNote, Balance, Begin, BeginError, Begun, CallRecord, Charge, Conclusion, Filter, HistoryQuestion,
    HoldError, Known, LedgerKey, NewArtifact, Note, Park, ParkError, Question, Reconcile, Reject, Renew, State,
    WithdrawnBy,
};

use super::entry::Entry;
use super::index::Index;
use super::{OpenError, Options, Recovery, Store};

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
        let (store, recovery) = Store::open(dir.path(), clock.clone(), options).unwrap();
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
        let (store, recovery) = Store::open(dir.path(), clock.clone(), self.options).unwrap();
        Self { dir, clock, store: Some(store), recovery, options: self.options }
    }

    fn reopen(&mut self) {
        self.store = None;
        let (store, recovery) = Store::open(self.dir.path(), self.clock.clone(), self.options).unwrap();
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
        let index = self.store().inner.index.dump().into_iter().filter(|(k, _)| k != b"m").collect();
        (
            serde_json::to_string(&image.calls).unwrap()
                + &serde_json::to_string(&image.ledgers).unwrap()
                + &serde_json::to_string(&image.tally).unwrap(),
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

fn parking(record: CallRecord) -> Park {
    Park {
        record,
        body: Bytes::from_static(b"card=canary-4111"),
        arguments: Bytes::from_static(br#"{"card":"canary-4111"}"#),
        evidence: vec![],
        max_per_agent: 50,
        max_total: 100,
    }
}

fn beginning(record: CallRecord, charges: Vec<Charge>, release: bool) -> Begin {
    Begin { record, body: Bytes::from_static(b"canary-4111"), arguments: Bytes::from_static(b"{}"), charges, release }
}

fn ledger() -> LedgerKey {
    LedgerKey { scope: "org".into(), owner: "acme".into(), unit: "EUR".into(), window: None }
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
    block(b.store().begin(beginning(record, vec![charge(10, 100)], false))).unwrap()
}

fn run(b: &Bench, record: CallRecord, state: State) -> CallRecord {
    let (begun, _) = begin(b, record);
    block(b.store().conclude(begun, conclusion(state))).unwrap()
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

#[test]
fn a_hold_goes_all_the_way_and_its_answer_is_replayed() {
    let b = Bench::new();
    let r = park(&b, held("f", Some("k")));
    assert_eq!(block(b.store().request_body(&r)).unwrap(), "card=canary-4111");
    assert_eq!(block(b.store().arguments(&r)).unwrap()["card"], "canary-4111");
    assert_eq!(b.known(&r, Some("k")), "held held");
    let r = approve(&b, &r);
    assert_eq!((r.state, r.window_closes), (State::Approved, Some(START.plus(MINUTE * 15))));
    let (begun, r) = block(b.store().begin(beginning(r, vec![charge(10, 100)], true))).unwrap();
    assert_eq!(b.known(&r, Some("k")), "in flight");
    assert_eq!(balance(&b), Balance { used: 0, reserved: 10 });
    let r = block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    assert_eq!(balance(&b), Balance { used: 10, reserved: 0 });
    assert_eq!(b.known(&r, Some("k")), "concluded succeeded");
    b.indexed();
    let again = block(b.store().get(r.id)).unwrap().unwrap();
    assert_eq!(again, r);
    assert_eq!(block(b.store().answer_body(&again)).unwrap().unwrap(), "canary-answer");
    let other = CallRecord { fingerprint: Digest::of(b"other"), ..r.clone() };
    assert_eq!(b.known(&other, Some("k")), "key reused");
    assert!(matches!(
        block(b.store().begin(beginning(CallRecord { id: CallId::new(), ..r }, vec![], false))),
        Err(BeginError::KeyTaken)
    ));
}

#[test]
fn a_hold_is_spent_once() {
    let b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let begins: Vec<_> = (0..2).map(|_| block(b.store().begin(beginning(r.clone(), vec![], true)))).collect();
    assert!(begins[0].is_ok());
    assert!(matches!(begins[1], Err(BeginError::NotApproved)));
}

#[test]
fn a_begin_without_room_changes_nothing_and_the_call_stays_approved() {
    let b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let other = LedgerKey { scope: "run".into(), ..ledger() };
    let charges = vec![Charge { ledger: other.clone(), amount: 1, limit: 5 }, charge(11, 10)];
    let refused = block(b.store().begin(beginning(r.clone(), charges, true)));
    assert!(matches!(refused, Err(BeginError::Budget(c)) if c.amount == 11));
    assert_eq!(b.store().balances(&[other, ledger()]).unwrap(), vec![Balance::default(); 2]);
    for amount in [-1, i64::MAX] {
        let charges = vec![charge(1, i64::MAX), charge(amount, i64::MAX)];
        assert!(matches!(block(b.store().begin(beginning(r.clone(), charges, true))), Err(BeginError::Budget(_))));
    }
    let note = Note { code: "budget_exhausted".into(), text: "org".into(), by: None };
    let waits = block(b.store().wait_reason(r.id, note.clone())).unwrap();
    assert_eq!((waits.state, waits.version), (State::Approved, r.version + 1));
    assert_eq!(block(b.store().wait_reason(r.id, note)).unwrap().version, waits.version);
}

#[test]
fn outcomes_settle_what_was_set_aside() {
    let cases = [
        (State::Succeeded, Balance { used: 10, reserved: 0 }),
        (State::Failed, Balance { used: 10, reserved: 0 }),
        (State::NotExecuted, Balance::default()),
        (State::Unknown, Balance { used: 0, reserved: 10 }),
    ];
    for (state, wanted) in cases {
        let b = Bench::new();
        let r = run(&b, fresh("f", Some("k")), state);
        assert_eq!(balance(&b), wanted, "{state:?}");
        let known = b.known(&r, Some("k"));
        let wanted_known = match state {
            State::NotExecuted => "new".to_owned(),
            State::Unknown => "unknown".to_owned(),
            state => format!("concluded {}", state.as_str()),
        };
        assert_eq!(known, wanted_known);
        b.indexed();
        assert_eq!(b.known(&r, Some("k")), wanted_known);
    }
}

#[test]
fn a_late_answer_settles_an_unknown_call_but_a_stale_attempt_never() {
    let b = Bench::new();
    let (begun, r) = begin(&b, fresh("f", None));
    let again = Begun { ..Begun { id: begun.id, attempt: begun.attempt, epoch: begun.epoch } };
    let stale = Begun { id: begun.id, attempt: begun.attempt + 1, epoch: begun.epoch };
    block(b.store().conclude(begun, conclusion(State::Unknown))).unwrap();
    assert_eq!(b.store().unknown_like(&r.principal, &r.operation, &r.fingerprint).unwrap(), Some(r.id));
    assert!(block(b.store().conclude(stale, conclusion(State::Failed))).is_err());
    let r = block(b.store().conclude(again, conclusion(State::Succeeded))).unwrap();
    assert_eq!((r.state, balance(&b)), (State::Succeeded, Balance { used: 10, reserved: 0 }));
}

#[test]
fn two_people_settle_an_unknown_call() {
    let b = Bench::new();
    let r = run(&b, fresh("f", Some("k")), State::Unknown);
    let say = |person: &str, outcome| {
        let said = Reconcile { id: r.id, person: person.into(), outcome, reason: "ledger shows it".into() };
        block(b.store().reconcile(said))
    };
    assert_eq!(say("eve", State::Succeeded).unwrap().state, State::Unknown);
    assert_eq!(say("eve", State::Succeeded).unwrap_err(), HoldError::AlreadyCounted);
    assert_eq!(say("max", State::NotExecuted).unwrap().state, State::Unknown);
    assert_eq!(say("eve", State::NotExecuted).unwrap().state, State::NotExecuted);
    assert!(matches!(say("max", State::Succeeded), Err(HoldError::AlreadyDecided(_))));
    assert_eq!(balance(&b), Balance::default());
}

#[test]
fn a_hold_is_collected_and_not_forgotten() {
    let b = Bench::new();
    let r = park(&b, held("f", None));
    assert_eq!(b.known(&r, None), "held held");
    assert_eq!(b.known(&r, Some("its own key")), "new");
    let approved = approve(&b, &r);
    let (begun, _) = block(b.store().begin(beginning(approved, vec![], true))).unwrap();
    let r = block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    b.pass(MINUTE * 60 * 5);
    assert_eq!(b.known(&r, None), "concluded succeeded");
    b.store().collected(r.id).unwrap();
    b.pass(MINUTE * 2 - Duration::from_millis(1));
    assert_eq!(b.known(&r, None), "concluded succeeded");
    b.pass(Duration::from_millis(1));
    assert_eq!(b.known(&r, None), "new");
}

#[test]
fn a_denial_is_told_and_repeated_for_a_minute() {
    let b = Bench::new();
    let r = park(&b, held("f", Some("k")));
    let reject = Reject {
        id: r.id,
        version: None,
        digest: r.digest,
        person: "eve".into(),
        reason_code: "wrong_amount".into(),
        message: None,
    };
    assert_eq!(block(b.store().reject(reject)).unwrap().state, State::Rejected);
    b.pass(MINUTE * 30);
    assert_eq!(b.known(&r, Some("k")), "over rejected");
    assert_eq!(b.known(&r, None), "over rejected");
    b.store().collected(r.id).unwrap();
    assert_eq!(b.known(&r, Some("k")), "over rejected");
    b.pass(MINUTE);
    assert_eq!(b.known(&r, Some("k")), "new");
}

#[test]
fn derived_keys_live_for_their_window_and_given_ones_from_the_conclusion() {
    let b = Bench::new();
    let derived = CallRecord { key_derived: true, keep: MINUTE * 2, ..fresh("d", Some("derived")) };
    let given = CallRecord { keep: MINUTE * 2, ..fresh("g", Some("given")) };
    let (one, d) = begin(&b, derived);
    let (two, g) = begin(&b, given);
    b.pass(MINUTE);
    block(b.store().conclude(one, conclusion(State::Succeeded))).unwrap();
    block(b.store().conclude(two, conclusion(State::Succeeded))).unwrap();
    b.pass(MINUTE);
    assert_eq!(b.known(&d, Some("derived")), "new");
    assert_eq!(b.known(&g, Some("given")), "concluded succeeded");
    b.pass(MINUTE);
    assert_eq!(b.known(&g, Some("given")), "new");
}

#[test]
fn expiry_needs_no_sweeper_and_a_clock_that_steps_back_revives_nothing() {
    let mut b = Bench::new();
    let (r, s) = (park(&b, held("f", None)), park(&b, held("g", None)));
    b.clock.set_wall(START.plus(MINUTE * 60));
    assert_eq!(b.known(&r, None), "over expired");
    b.clock.set_wall(START);
    assert!(matches!(
        block(b.store().vote(vote(&r, "eve", &["ops"]))),
        Err(HoldError::Expired(_) | HoldError::AlreadyDecided(_))
    ));
    assert!(matches!(block(b.store().vote(vote(&s, "eve", &["ops"]))), Err(HoldError::Expired(_))));
    assert!(block(b.store().expire_due(START)).unwrap().is_empty());
    b.reopen();
    assert_eq!(block(b.store().get(s.id)).unwrap().unwrap().state, State::Expired);
}

#[test]
fn expire_due_records_what_is_over() {
    let b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    assert!(block(b.store().expire_due(START.plus(MINUTE * 14))).unwrap().is_empty());
    assert_eq!(block(b.store().expire_due(START.plus(MINUTE * 15))).unwrap(), [r.id]);
    let r = block(b.store().get(r.id)).unwrap().unwrap();
    assert_eq!((r.state, r.note.unwrap().code.as_str()), (State::Expired, "hold_expired"));
    let late = approve(&b, &park(&b, CallRecord { fingerprint: Digest::of(b"2"), ..held("g", None) }));
    b.pass(MINUTE * 60);
    let begun = block(b.store().begin(beginning(late, vec![], true)));
    assert!(matches!(begun, Err(BeginError::WindowClosed)));
}

#[test]
fn caps_count_what_waits() {
    let b = Bench::new();
    let put = |f: &str, per_agent, total| {
        let park = Park { max_per_agent: per_agent, max_total: total, ..parking(held(f, None)) };
        block(b.store().park(park))
    };
    let first = put("1", 1, 9).unwrap();
    assert_eq!(put("2", 1, 9).unwrap_err(), ParkError::TooManyAgent);
    assert_eq!(put("2", 9, 1).unwrap_err(), ParkError::TooManyTotal);
    assert_eq!(put("1", 9, 9).unwrap_err(), ParkError::KeyTaken(first.id));
    block(b.store().withdraw(first.id, WithdrawnBy::Agent(principal().key()), "no need")).unwrap();
    put("2", 1, 9).unwrap();
}

#[test]
fn another_agent_cannot_withdraw() {
    let b = Bench::new();
    let r = park(&b, held("f", None));
    let mut other = principal();
    other.agent = "mallory".into();
    let by = WithdrawnBy::Agent(other.key());
    assert_eq!(block(b.store().withdraw(r.id, by, "x")).unwrap_err(), HoldError::NotFound);
    assert_eq!(
        block(b.store().withdraw(CallId::new(), WithdrawnBy::Person("p".into()), "x")).unwrap_err(),
        HoldError::NotFound
    );
}

#[test]
fn a_renewed_hold_needs_new_votes_and_rejecting_an_approved_one_revokes_it() {
    let b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let moved = Renew {
        id: r.id,
        version: Some(r.version),
        terms: terms(Tier::High, &[(&["ops"], true)], 2),
        digest: Digest::of(b"moved"),
        config_digest: r.config_digest,
        policy_digest: r.policy_digest,
        what_changed: Note { code: "changed".into(), text: "limit".into(), by: None },
    };
    let r2 = block(b.store().renew(moved.clone())).unwrap();
    assert_eq!((r2.state, r2.approvals.len(), r2.renewals), (State::Held, 0, 1));
    assert!(matches!(block(b.store().renew(moved)), Err(HoldError::VersionChanged(_))));
    assert!(matches!(block(b.store().vote(vote(&r, "eve", &["ops"]))), Err(HoldError::DigestChanged(_))));
    assert_eq!(approve(&b, &r2).state, State::Held);
    let r3 = block(b.store().vote(vote(&r2, "max", &["ops"]))).unwrap();
    assert_eq!((r3.state, r3.approvals.len()), (State::Approved, 2));
    let reject = Reject {
        id: r.id,
        version: None,
        digest: r3.digest,
        person: "eve".into(),
        reason_code: "other".into(),
        message: None,
    };
    assert_eq!(block(b.store().reject(reject)).unwrap().state, State::Revoked);
}

#[test]
fn evidence_is_attached_by_its_owner_and_lifts_the_demand() {
    let b = Bench::new();
    let mut wants = held("f", None);
    wants.terms.as_mut().unwrap().needs.evidence = vec!["ticket".into()];
    let r = park(&b, wants);
    let put = |principal_key| {
        let new = NewArtifact {
            id: ArtifactId::new(),
            kind: "ticket".into(),
            title: "T-1".into(),
            by: "bot".into(),
            principal_key,
            content: Bytes::from_static(b"canary-ticket"),
        };
        block(b.store().put_artifact(new)).unwrap()
    };
    assert!(matches!(block(b.store().vote(vote(&r, "eve", &["ops"]))), Err(HoldError::EvidenceMissing(_))));
    let mut other = principal();
    other.agent = "mallory".into();
    let foreign = put(other.key());
    assert_eq!(block(b.store().attach_evidence(r.id, foreign)).unwrap_err(), HoldError::NotFound);
    let own = put(r.principal.key());
    let r = block(b.store().attach_evidence(r.id, own)).unwrap();
    assert_eq!(block(b.store().attach_evidence(r.id, own)).unwrap().version, r.version);
    assert_eq!(block(b.store().artifact(own)).unwrap().unwrap().1, "canary-ticket");
    assert_eq!(approve(&b, &r).state, State::Approved);
}

#[test]
fn a_kill_while_sending_leaves_unknown_and_recovery_is_idempotent() {
    let b = Bench::new();
    let (_begun, r) = begin(&b, fresh("f", Some("k")));
    let approved = approve(&b, &park(&b, held("g", None)));
    let one = b.killed();
    assert_eq!(one.recovery.to_unknown, [r.id]);
    assert_eq!(one.recovery.approved, [approved.id]);
    assert_eq!(one.recovery.epoch, b.recovery.epoch + 1);
    assert!(!one.recovery.ledgers_corrected);
    let dead = block(one.store().get(r.id)).unwrap().unwrap();
    assert_eq!((dead.state, dead.note.unwrap().code.as_str()), (State::Unknown, "process_died"));
    assert_eq!(balance(&one), Balance { used: 0, reserved: 10 });
    let two = one.killed();
    assert_eq!((two.recovery.to_unknown.len(), two.recovery.epoch), (0, b.recovery.epoch + 2));
    assert_eq!(one.dump(), two.dump());
    let late = Begun { id: r.id, attempt: 1, epoch: b.recovery.epoch };
    block(two.store().conclude(late, conclusion(State::Succeeded))).unwrap();
}

#[test]
fn everything_acknowledged_is_there_after_a_kill_at_any_step() {
    let b = Bench::new();
    let r = park(&b, held("f", Some("k")));
    assert_eq!(block(b.killed().store().get(r.id)).unwrap().unwrap(), r);
    let r = approve(&b, &r);
    let copy = b.killed();
    assert_eq!(block(copy.store().get(r.id)).unwrap().unwrap(), r);
    assert_eq!(block(copy.store().request_body(&r)).unwrap(), "card=canary-4111");
    let (begun, r) = block(b.store().begin(beginning(r, vec![charge(10, 100)], true))).unwrap();
    assert_eq!(b.killed().recovery.to_unknown, [r.id]);
    let r = block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    let copy = b.killed();
    assert_eq!(block(copy.store().get(r.id)).unwrap().unwrap(), r);
    assert_eq!(block(copy.store().answer_body(&r)).unwrap().unwrap(), "canary-answer");
    assert_eq!(balance(&copy), Balance { used: 10, reserved: 0 });
}

/// Some of everything, over several segments.
fn fill(b: &Bench) {
    for n in 0..30 {
        let f = format!("f{n}");
        let states = [State::Succeeded, State::Failed, State::NotExecuted, State::Unknown];
        let mut r = fresh(&f, Some(&f));
        r.money = Some((n, "EUR".into()));
        r.target = Some(Digest::of(f.as_bytes()));
        let r = block(b.store().begin(beginning(r, vec![charge(1, 100)], false)))
            .map(|(begun, _)| block(b.store().conclude(begun, conclusion(states[n as usize % 4]))).unwrap())
            .unwrap();
        if n % 3 == 0 {
            b.store().collected(r.id).unwrap();
        }
        let h = park(b, held(&format!("h{n}"), None));
        if n % 2 == 0 {
            approve(b, &h);
        }
        let note = AuditNote {
            kind: "call.refused".into(),
            call: None,
            principal: None,
            agent: Some(("acme".into(), "bot".into())),
            run: None,
            operation: None,
            code: Some("forbidden".into()),
            more: Default::default(),
        };
        block(b.store().append(note, true)).unwrap();
    }
}

#[test]
fn the_index_is_rebuilt_the_same_when_it_is_lost_or_broken() {
    let mut b = Bench::with(Options { segment_bytes: 20_000, preallocate: 4096, ..Options::default() });
    fill(&b);
    assert!(fs::read_dir(b.dir.path().join("journal")).unwrap().count() > 3);
    b.reopen();
    assert!(!b.recovery.index_rebuilt);
    let before = b.dump();
    let index = b.dir.path().join("index");
    b.store = None;
    fs::remove_dir_all(&index).unwrap();
    b.reopen();
    assert!(b.recovery.index_rebuilt);
    assert_eq!(b.dump(), before);
    b.store = None;
    fs::write(index.join("db"), b"rubbish").unwrap();
    fs::write(index.join("conf"), b"rubbish").unwrap();
    fs::write(index.join("snap.0000.generating"), b"").unwrap();
    b.reopen();
    assert!(b.recovery.index_rebuilt);
    assert_eq!(b.dump(), before);
    b.store = None;
    let inside = Index::open(&index).unwrap();
    inside.forget_mark();
    drop(inside);
    b.reopen();
    assert!(b.recovery.index_rebuilt && b.dir.path().join("index.bad1").exists());
    assert_eq!(b.dump(), before);
}

#[test]
fn a_start_from_the_last_snapshot_gives_the_same_state_as_a_full_replay() {
    let mut b = Bench::with(Options { segment_bytes: 20_000, preallocate: 4096, ..Options::default() });
    fill(&b);
    b.reopen();
    let (replayed, short) = (b.recovery.replayed, b.dump());
    b.store = None;
    fs::remove_dir_all(b.dir.path().join("index")).unwrap();
    b.reopen();
    assert!(b.recovery.replayed > replayed + 50, "{} {replayed}", b.recovery.replayed);
    assert_eq!(b.dump(), short);
}

#[test]
fn an_index_that_is_ahead_of_the_journal_is_not_believed() {
    let mut b = Bench::new();
    let r = run(&b, fresh("f", Some("k")), State::Succeeded);
    b.indexed();
    let journal = b.dir.path().join("journal");
    b.store = None;
    let saved = tempfile::tempdir().unwrap();
    copy(&journal, saved.path());
    b.reopen();
    let later = run(&b, fresh("g", Some("l")), State::Succeeded);
    b.store = None;
    fs::remove_dir_all(&journal).unwrap();
    copy(saved.path(), &journal);
    b.reopen();
    assert!(b.recovery.index_rebuilt);
    assert!(block(b.store().get(later.id)).unwrap().is_none());
    assert_eq!(b.known(&r, Some("k")), "concluded succeeded");
}

#[test]
fn only_one_process_has_it() {
    let mut b = Bench::new();
    let error = Store::open(b.dir.path(), b.clock.clone(), b.options).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { who, .. } if who.contains("epoch 1")), "{error}");
    b.reopen();
    assert_eq!(b.recovery.epoch, 2);
}

#[test]
fn another_payload_key_is_refused() {
    let mut b = Bench::new();
    b.store = None;
    let other = Options { key: Some([3; 32]), ..b.options };
    assert!(matches!(Store::open(b.dir.path(), b.clock.clone(), other), Err(OpenError::WrongKey)));
    b.reopen();
}

#[test]
fn damage_in_the_middle_refuses_to_open() {
    let mut b = Bench::new();
    run(&b, fresh("f", None), State::Succeeded);
    b.store = None;
    let file = crate::journal::segments(&b.dir.path().join("journal")).unwrap().pop().unwrap().path;
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 4;
    fs::write(&file, bytes).unwrap();
    let error = Store::open(b.dir.path(), b.clock.clone(), b.options).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged(bad) if bad.seq == 1), "{error}");
    assert!(crate::audit::verify(b.dir.path()).is_err());
}

#[test]
fn a_failed_write_makes_everything_with_effects_unavailable() {
    let b = Bench::new();
    let r = park(&b, held("f", None));
    b.store().journal().fail_from_now_on();
    assert_eq!(block(b.store().vote(vote(&r, "eve", &["ops"]))).unwrap_err(), HoldError::Unavailable);
    assert!(!b.store().healthy());
    assert!(matches!(block(b.store().begin(beginning(fresh("g", None), vec![], false))), Err(BeginError::Unavailable)));
    assert_eq!(block(b.store().park(parking(held("h", None)))).unwrap_err(), ParkError::Unavailable);
    assert!(block(b.store().look_up(question(&r))).is_err());
    assert_eq!(block(b.killed().store().get(r.id)).unwrap().unwrap().state, State::Held);
}

#[test]
fn no_payload_stands_in_the_clear_anywhere() {
    let mut b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let (begun, _) = block(b.store().begin(beginning(r, vec![], true))).unwrap();
    block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    b.store = None;
    let mut dirs = vec![b.dir.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                assert!(!bytes.windows(6).any(|w| w == b"canary"), "{}", path.display());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::disallowed_methods, reason = "tests race plain tasks")]
async fn a_budget_is_exact_and_syncs_are_shared_under_many_tasks() {
    let b = Bench::new();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = b.store().clone();
            tokio::spawn(async move {
                let r = fresh(&format!("f{n}"), None);
                let (begun, _) = store.begin(beginning(r, vec![charge(3, 100)], false)).await.ok()?;
                let state = if n % 2 == 0 { State::Succeeded } else { State::Unknown };
                store.conclude(begun, conclusion(state)).await.ok()
            })
        })
        .collect();
    let mut ran = 0;
    for task in tasks {
        ran += i64::from(task.await.unwrap().is_some());
    }
    assert_eq!(ran, 33);
    let balance = b.store().balances(&[ledger()]).unwrap()[0];
    assert_eq!(balance.used + balance.reserved, 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::disallowed_methods, reason = "tests race plain tasks")]
async fn a_key_is_claimed_once() {
    let b = Bench::new();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = b.store().clone();
            tokio::spawn(async move {
                let r = fresh("f", Some("k"));
                if n % 2 == 0 {
                    store.begin(beginning(r, vec![], false)).await.is_ok()
                } else {
                    store
                        .park(parking(CallRecord { state: State::Held, terms: Some(terms(Tier::Medium, &[], 1)), ..r }))
                        .await
                        .is_ok()
                }
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_waiter_is_woken_and_memory_lets_concluded_calls_go() {
    let b = Bench::new();
    let store = b.store().clone();
    let (begun, r) = store.begin(beginning(fresh("f", None), vec![], false)).await.unwrap();
    let mut watch = store.watch(r.id).unwrap().unwrap();
    assert!(store.watch(CallId::new()).unwrap().is_none());
    store.conclude(begun, conclusion(State::Succeeded)).await.unwrap();
    let seen = *watch.wait_for(|(state, _)| state.is_final()).await.unwrap();
    assert_eq!(seen, (State::Succeeded, 2));
    wait_indexed(&store).await;
    assert!(store.inner.core.lock().unwrap().calls.is_empty());
    assert_eq!(*store.watch(r.id).unwrap().unwrap().borrow(), (State::Succeeded, 2));
}

#[test]
fn history_is_counted_from_the_records() {
    let b = Bench::new();
    let p = principal();
    let target = Digest::of(b"customer 7");
    let ask = |b: &Bench| {
        let q = HistoryQuestion {
            principal: &p,
            run: "r1",
            operation: "crm.refund",
            target: Some(target),
            currency: Some("EUR"),
        };
        b.store().history(&q).unwrap()
    };
    assert!(ask(&b).first_time_target);
    let paid = CallRecord { money: Some((500, "EUR".into())), target: Some(target), ..fresh("f", None) };
    run(&b, paid.clone(), State::Succeeded);
    let failed = CallRecord { id: CallId::new(), fingerprint: Digest::of(b"g"), ..paid };
    run(&b, failed, State::Failed);
    let note = |kind: &str, code: Option<&str>| AuditNote {
        kind: kind.into(),
        call: None,
        principal: None,
        agent: Some((p.org.clone(), p.agent.clone())),
        run: Some("r1".into()),
        operation: None,
        code: code.map(str::to_owned),
        more: Default::default(),
    };
    block(b.store().append(note("call.refused", Some("forbidden")), false)).unwrap();
    block(b.store().append(note("call.read", None), false)).unwrap();
    let check = |b: &Bench| {
        let h = ask(b);
        assert_eq!((h.calls_this_run, h.calls_last_hour, h.denied_last_hour), (3, 4, 1));
        assert_eq!((h.sum_minor_today, h.first_time_target), (500, false));
    };
    check(&b);
    block(b.store().append(note("other", None), true)).unwrap();
    b.indexed();
    check(&b);
    check(&b.killed());
    b.pass(MINUTE * 60);
    let h = ask(&b);
    assert_eq!((h.calls_this_run, h.calls_last_hour, h.denied_last_hour), (3, 0, 0));
    b.pass(MINUTE * 60 * 24);
    assert_eq!(ask(&b).sum_minor_today, 0);
}

#[test]
fn lists_are_newest_first_over_memory_and_index() {
    let b = Bench::new();
    let ids: Vec<CallId> = (0..6)
        .map(|n| {
            let f = format!("f{n}");
            if n % 2 == 0 { run(&b, fresh(&f, None), State::Succeeded).id } else { park(&b, held(&f, None)).id }
        })
        .collect();
    b.indexed();
    let list = |filter| block(b.store().list(filter)).unwrap().into_iter().map(|r| r.id).collect::<Vec<_>>();
    let all: Vec<CallId> = ids.iter().rev().copied().collect();
    assert_eq!(list(Filter { limit: 9, ..Filter::default() }), all);
    assert_eq!(list(Filter { limit: 2, before: Some(ids[4]), ..Filter::default() }), [ids[3], ids[2]]);
    assert_eq!(list(Filter { limit: 9, holds_only: true, ..Filter::default() }), [ids[5], ids[3], ids[1]]);
    let succeeded = Filter { limit: 9, states: vec![State::Succeeded], ..Filter::default() };
    assert_eq!(list(succeeded), [ids[4], ids[2], ids[0]]);
    assert!(list(Filter { limit: 9, agent: Some("other".into()), ..Filter::default() }).is_empty());
    let text = ids[1].hold().to_string().to_lowercase();
    assert_eq!(b.store().find_by_suffix_or_code(text.split_at(text.len() - 6).1).unwrap(), [ids[1]]);
    let code = crate::call::short_code(&Digest::of(b"digest"));
    assert_eq!(b.store().find_by_suffix_or_code(&code).unwrap().len(), 3);
    assert!(b.store().find_by_suffix_or_code("").unwrap().is_empty());
    let counts = b.store().open_calls().unwrap();
    assert_eq!((counts.len(), counts[0].state, counts[0].calls), (1, State::Held, 3));
}

#[test]
fn every_step_is_one_audit_record_and_the_whole_verifies() {
    let mut b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let (begun, _) = block(b.store().begin(beginning(r, vec![], true))).unwrap();
    block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    b.store = None;
    let kinds: Vec<String> = crate::audit::lines(b.dir.path(), 1).unwrap().map(|l| l.unwrap().kind()).collect();
    assert_eq!(kinds, ["snapshot", "epoch", "recovery", "parked", "approved", "begun", "concluded"]);
    let report = crate::audit::verify(b.dir.path()).unwrap();
    assert_eq!((report.records, report.segments, report.first_at), (7, 1, Some(START)));
    assert!(report.to_string().contains("7 records (1 to 7)"));
    assert_eq!(crate::audit::lines(b.dir.path(), 5).unwrap().count(), 3);
}

#[test]
fn an_entry_reads_back_as_it_was_written() {
    let mut r = held("f", Some("k"));
    r.charges = vec![charge(i64::MAX, i64::MAX)];
    r.arguments = serde_json::json!({"n": 9_007_199_254_740_993_i64, "f": 0.1});
    let entry = Entry::Call { step: crate::store::Step::Parked, record: Arc::new(r.clone()) };
    let text = serde_json::to_string(&entry).unwrap();
    let Entry::Call { record, .. } = serde_json::from_str(&text).unwrap() else { panic!() };
    assert_eq!(*record, r);
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

#[tokio::test]
async fn many_notes_without_a_step_make_nobody_wait_for_the_index() {
    let b = Bench::new();
    for _ in 0..super::MAX_LAG + 10 {
        b.store().append(audit_note("call.read"), false).await.unwrap();
    }
    b.store().append(audit_note("call.read"), true).await.unwrap();
    b.store().begin(beginning(fresh("f", None), vec![], false)).await.map(drop).unwrap();
}

#[test]
fn a_lost_key_file_is_not_replaced() {
    let mut b = Bench::new();
    b.store = None;
    let key = b.dir.path().join("payload.key");
    fs::remove_file(&key).unwrap();
    assert!(matches!(Store::open(b.dir.path(), b.clock.clone(), b.options), Err(OpenError::WrongKey)));
    assert!(!key.exists());
}

/// A small generator, so that a failing seed can be tried again.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// One random step; whatever it answers.
fn random_step(b: &Bench, random: &mut Lcg, begun: &mut Vec<Begun>, holds: &mut Vec<CallRecord>) {
    let f = format!("f{}", random.next(6));
    let some = (!holds.is_empty()).then(|| holds[random.next(holds.len().max(1))].clone());
    match (random.next(7), some) {
        (0, _) => {
            let key = format!("k{}", random.next(6));
            let charges = vec![charge(7, 60)];
            begun.extend(block(b.store().begin(beginning(fresh(&f, Some(&key)), charges, false))).ok().map(|(g, _)| g));
        }
        (1, _) => holds.extend(block(b.store().park(parking(held(&f, None)))).ok()),
        (2, Some(r)) => drop(block(b.store().vote(vote(&r, "eve", &["ops"])))),
        (3, Some(r)) => {
            if let Some(now) = block(b.store().get(r.id)).unwrap() {
                begun.extend(block(b.store().begin(beginning(now, vec![charge(5, 60)], true))).ok().map(|(g, _)| g));
            }
        }
        (4, _) if !begun.is_empty() => {
            let states = [State::Succeeded, State::Failed, State::NotExecuted, State::Unknown];
            let which = begun.swap_remove(random.next(begun.len()));
            block(b.store().conclude(which, conclusion(states[random.next(4)]))).unwrap();
        }
        (5, Some(r)) => drop(block(b.store().withdraw(r.id, WithdrawnBy::Person("p".into()), "x"))),
        _ => b.pass(MINUTE * u32::try_from(random.next(20)).unwrap()),
    }
}

/// What must be the same after a kill: budgets, and every call that was not being sent.
fn picture(b: &Bench) -> (Balance, Vec<(CallId, State, u64)>) {
    let all = block(b.store().list(Filter { limit: 1000, ..Filter::default() })).unwrap();
    let settled = |s: State| if s == State::Dispatching { State::Unknown } else { s };
    let version = |r: &CallRecord| if settled(r.state) == State::Unknown { 0 } else { r.version };
    (balance(b), all.iter().map(|r| (r.id, settled(r.state), version(r))).collect())
}

#[test]
fn random_steps_keep_budgets_and_calls_over_kills() {
    for seed in 0..12 {
        let b = Bench::with(Options { segment_bytes: 30_000, preallocate: 4096, ..Options::default() });
        let (mut random, mut begun, mut holds) = (Lcg(seed), vec![], vec![]);
        let mut finals: std::collections::HashMap<CallId, State> = Default::default();
        for step in 0..60 {
            random_step(&b, &mut random, &mut begun, &mut holds);
            let (balance, calls) = picture(&b);
            assert!(balance.used + balance.reserved <= 60 && balance.reserved >= 0, "seed {seed} step {step}");
            for (id, state, _) in calls.iter().filter(|(_, s, _)| s.is_final()) {
                assert_eq!(finals.insert(*id, *state).unwrap_or(*state), *state, "seed {seed} step {step}");
            }
            if step % 20 == 19 {
                let copy = b.killed();
                assert!(!copy.recovery.ledgers_corrected);
                assert_eq!(picture(&copy), (balance, calls), "seed {seed} step {step}");
            }
        }
        crate::journal::verify(&b.dir.path().join("journal")).unwrap();
    }
}
