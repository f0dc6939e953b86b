//! The kill switch in the store on real files.

use std::fs;

use crate::call::PauseScope;
use crate::store::fixtures::{MINUTE, START, vote};
use crate::store::{BeginError, CallRecord, HoldError, ParkError, PauseDone, Reject, State};

use super::{Bench, approve, beginning, block, declared, fresh, held, park, parking};

fn pause(b: &Bench, scope: &str) -> PauseDone {
    block(b.store().pause(scope.parse().unwrap(), "odd".into(), "maya".into())).unwrap()
}

fn lift(b: &Bench, scope: &str) -> Option<PauseDone> {
    block(b.store().lift(&scope.parse().unwrap(), "fine".into(), "li".into())).unwrap()
}

fn get(b: &Bench, record: &CallRecord) -> CallRecord {
    block(b.store().get(record.id)).unwrap().unwrap()
}

fn release(b: &Bench, record: CallRecord) -> Result<State, BeginError> {
    block(b.store().begin(beginning(record, vec![], true))).map(|(_, record)| record.state)
}

#[test]
fn nothing_that_is_stopped_begins_or_is_parked() {
    let b = Bench::new();
    let approved = approve(&b, &park(&b, held("a", None)));
    let (lost, _) = block(b.store().begin(beginning(declared("d", None), vec![], false))).unwrap();
    for scope in ["all", "agent:bot", "workflow:w", "tool:crm"] {
        pause(&b, scope);
        let begun = block(b.store().begin(beginning(fresh("f", None), vec![], false)));
        let Err(BeginError::Paused(by)) = begun else { panic!("{scope}: {begun:?}") };
        assert_eq!((by.scope.to_string().as_str(), by.by.as_str()), (scope, "maya"));
        assert!(matches!(block(b.store().park(parking(held("h", None)))), Err(ParkError::Paused(_))), "{scope}");
        assert!(matches!(release(&b, get(&b, &approved)), Err(BeginError::Paused(_))), "{scope}");
        assert!(block(b.store().again(&lost)).unwrap().is_none(), "{scope}: sent again");
        lift(&b, scope).unwrap();
    }
    pause(&b, "agent:other");
    assert_eq!(release(&b, get(&b, &approved)), Ok(State::Dispatching));
}

#[test]
fn a_person_can_take_back_what_a_stopped_agent_did() {
    let b = Bench::new();
    let undo = || {
        let of = crate::store::UndoOf {
            call: held("u", None).id,
            person: "eve".into(),
            aliases: vec![],
            reason: "x".into(),
        };
        CallRecord { undoes: Some(Box::new(of)), ..fresh("undo", None) }
    };
    for (scope, stops) in [("agent:bot", false), ("workflow:w", false), ("tool:crm", true), ("all", true)] {
        pause(&b, scope);
        let begun = block(b.store().begin(beginning(undo(), vec![], false)));
        assert_eq!(matches!(begun, Err(BeginError::Paused(_))), stops, "{scope}: {begun:?}");
        lift(&b, scope).unwrap();
    }
}

#[test]
fn clocks_stand_still_while_it_is_on_and_people_can_still_decide() {
    let b = Bench::new();
    let (waits, other) = (park(&b, held("a", None)), park(&b, held("b", None)));
    let approved = approve(&b, &park(&b, held("c", None)));
    b.pass(MINUTE * 10);
    assert_eq!((pause(&b, "all").waiting, pause(&b, "tool:crm").waiting), (3, 0));
    b.pass(MINUTE * 300);
    assert_eq!(block(b.store().expire_due(START.plus(MINUTE * 310))).unwrap(), []);
    assert_eq!((get(&b, &waits).state, get(&b, &approved).state), (State::Held, State::Approved));
    let voted = block(b.store().vote(vote(&get(&b, &waits), "eve", &["ops"]))).unwrap();
    let no = get(&b, &other);
    let reject = Reject {
        id: no.id,
        version: None,
        digest: no.digest,
        person: "eve".into(),
        reason_code: "unsafe".into(),
        message: None,
        deny_alike: None,
    };
    assert_eq!(block(b.store().reject(reject)).unwrap().state, State::Rejected);
    assert_eq!(voted.state, State::Approved);

    assert_eq!(lift(&b, "all").unwrap().waiting, 0, "the tool is stopped still");
    assert!(get(&b, &approved).halted.is_some());
    assert_eq!(lift(&b, "tool:crm").unwrap().waiting, 2);
    let closes = |r: &CallRecord| get(&b, r).window_closes.unwrap();
    // 15 minutes from the vote, of which 10 are over for the first, and none for the one that was voted on meanwhile.
    assert_eq!(closes(&approved), START.plus(MINUTE * 315));
    assert_eq!(closes(&waits), START.plus(MINUTE * 325));
    b.pass(MINUTE * 5);
    assert_eq!(get(&b, &approved).state, State::Expired);
    assert_eq!(release(&b, get(&b, &waits)), Ok(State::Dispatching));
}

#[test]
fn what_was_over_before_is_over_and_the_same_scope_is_stopped_once() {
    let b = Bench::new();
    let late = park(&b, held("a", None));
    b.pass(MINUTE * 60);
    let first = pause(&b, "all");
    assert_eq!((first.changed, first.waiting), (true, 0));
    b.pass(MINUTE);
    let second = pause(&b, "all");
    assert_eq!((second.changed, second.pause), (false, first.pause));
    assert_eq!(get(&b, &late).state, State::Expired);
    assert!(matches!(block(b.store().vote(vote(&late, "eve", &["ops"]))), Err(HoldError::Expired(_))));
    assert!(lift(&b, "agent:bot").is_none());
}

#[test]
fn it_outlives_kills_segments_and_a_lost_index() {
    let mut b = Bench::with(super::Options { preallocate: 4096, segment_bytes: 8 << 10, ..super::Options::default() });
    let waits = park(&b, held("a", None));
    pause(&b, "agent:bot");
    b.pass(MINUTE * 90);
    for n in 0..90 {
        block(b.store().append(super::audit_note(&format!("note{n}")), true)).unwrap();
    }
    let killed = b.killed();
    b.store = None;
    fs::remove_dir_all(b.dir.path().join("index")).unwrap();
    b.reopen();
    for store in [&b, &killed] {
        let pauses = store.store().pauses();
        assert_eq!((pauses.len(), pauses[0].reason.as_str(), pauses[0].since), (1, "odd", START));
        assert_eq!(get(store, &waits).state, State::Held);
        assert!(matches!(block(store.store().park(parking(held("h", None)))), Err(ParkError::Paused(_))));
        lift(store, "agent:bot").unwrap();
        assert_eq!(get(store, &waits).expires, Some(START.plus(MINUTE * 150)));
    }
    let killed = b.killed();
    assert_eq!(killed.store().pauses(), []);
    assert_eq!(get(&killed, &waits).halted, None);
}

#[test]
fn a_kill_in_the_middle_leaves_clocks_that_agree_with_it() {
    let mut b = Bench::new();
    let (first, second) = (park(&b, held("a", None)), park(&b, held("c", None)));
    // As a kill between the frames of one step leaves it: the pause is there, and one of two records.
    let stop = |b: &Bench, on: bool| {
        let (mut core, now) = b.store().inner.lock_healthy().unwrap();
        let (scope, by): (PauseScope, String) = ("all".parse().unwrap(), "maya".into());
        let pause = crate::store::Pause { scope: scope.clone(), reason: "odd".into(), by: by.clone(), since: now };
        let entry = |_| match on {
            true => super::super::entry::Entry::Paused { pause },
            false => super::super::entry::Entry::Resumed { scope, reason: "fine".into(), by },
        };
        b.store().inner.commit(&mut core, now, Vec::new(), entry).unwrap();
        let record = core.calls[&first.id].clone();
        let event = if on { super::super::Event::Halt(now) } else { super::super::Event::Continue };
        b.store().inner.step(&mut core, &record, event, now, Vec::new()).map(drop).map_err(drop).unwrap();
    };
    stop(&b, true);
    b.pass(MINUTE * 90);
    b.reopen();
    for record in [&first, &second] {
        assert_eq!((get(&b, record).state, get(&b, record).halted), (State::Held, Some(START)));
    }
    stop(&b, false);
    b.pass(MINUTE * 10);
    b.reopen();
    assert_eq!(get(&b, &first).expires, Some(START.plus(MINUTE * 150)));
    assert_eq!(get(&b, &second).expires, Some(START.plus(MINUTE * 160)), "it stood still until somebody let it go on");
}
