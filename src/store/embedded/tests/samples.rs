//! Sampled calls outlive kills and segments, with what was said of them.

use crate::call::{CallId, Verdict};
use crate::store::fixtures::{MINUTE, START, principal};
use crate::store::{HoldError, JudgeSample, Sample, State};

use super::super::Options;
use super::{Bench, beginning, block, conclusion, fresh};

fn sample(b: &Bench) -> CallId {
    let id = CallId::new();
    let made = Sample {
        id,
        operation: "crm.get".into(),
        principal: principal().into(),
        workflow: "w".into(),
        title: "Read".into(),
        arguments: serde_json::json!({"id": "c_1"}).into(),
        policies: vec!["reads".into()],
        grant: None,
        recorded: false,
        at: START,
        judged: None,
    };
    b.store().sample(made).unwrap();
    id
}

fn judge(b: &Bench, id: CallId, who: &str, verdict: Verdict) -> Result<(), HoldError> {
    let said = JudgeSample { id, verdict, reason_code: None, person: who.into(), names: vec![format!("idp|{who}")] };
    block(b.store().judge_sample(said)).map(drop)
}

fn open(b: &Bench) -> Vec<CallId> {
    let mut all: Vec<_> = block(b.store().samples()).unwrap().iter().filter(|s| s.is_open()).map(|s| s.id).collect();
    all.reverse();
    all
}

#[test]
fn a_verdict_stands_and_an_unsure_one_leaves_it_open() {
    let b = Bench::new();
    let (first, second) = (sample(&b), sample(&b));
    for own in ["olga", "Anna", "anna@ACME.example"] {
        assert_eq!(judge(&b, first, own, Verdict::Good), Err(HoldError::SelfReview), "{own}");
    }
    assert_eq!(judge(&b, CallId::new(), "eve", Verdict::Good), Err(HoldError::NotFound));
    judge(&b, first, "eve", Verdict::Unsure).unwrap();
    assert_eq!(open(&b.killed()), [first, second]);
    judge(&b, first, "max", Verdict::Bad).unwrap();
    assert_eq!(judge(&b, first, "eve", Verdict::Good), Err(HoldError::AlreadyCounted));
    assert_eq!(open(&b.killed()), [second]);
}

#[test]
fn new_segments_begin_with_them_and_old_ones_are_forgotten() {
    let mut b = Bench::with(Options { segment_bytes: 8_000, preallocate: 4096, ..Options::default() });
    let old = sample(&b);
    let fill = |b: &Bench, name: &str| {
        for n in 0..20 {
            let one = beginning(fresh(&format!("{name}{n}"), None), Vec::new(), false);
            let (begun, _) = block(b.store().begin(one)).unwrap();
            block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
        }
    };
    b.pass(MINUTE * 60 * 24 * 34);
    let young = sample(&b);
    fill(&b, "x");
    b.reopen();
    assert_eq!(open(&b), [old, young]);
    b.pass(MINUTE * 60 * 24 * 2);
    fill(&b, "y");
    b.reopen();
    assert_eq!(open(&b), [young]);
}
