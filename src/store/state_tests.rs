use super::*;
use crate::call::Tier;
use crate::store::fixtures::{MINUTE, START, record, terms};

fn note(by: Option<&str>) -> Note {
    Note { code: "x".into(), text: "x".into(), by: by.map(str::to_owned) }
}

fn approval(person: &str) -> Approval {
    Approval {
        aliases: Vec::new(),
        person: person.into(),
        subject: person.into(),
        groups: vec![],
        at: START,
        channel: "api".into(),
        digest: Digest::of(b"digest"),
        justification: None,
    }
}

fn conclude(attempt: u32, state: State) -> Event {
    Event::Conclude { attempt, epoch: 1, state, answer: None, note: None }
}

/// One of each event; those of an attempt fit attempt 1 of epoch 1.
fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("vote", Event::Vote { approval: approval("a"), last: false }),
        ("last vote", Event::Vote { approval: approval("a"), last: true }),
        ("renew", renew()),
        ("edit", edit()),
        ("comment", Event::Handle(comment())),
        ("claim", Event::Handle(Handled::Released)),
        ("halt", Event::Halt(START)),
        ("continue", Event::Continue),
        ("wait", Event::Wait(note(None))),
        ("reject", Event::Reject(note(None), None)),
        ("withdraw", Event::Withdraw(note(None))),
        ("revoke", Event::Revoke(note(None))),
        ("begin", Event::Begin { epoch: 1, charges: vec![], ruling: Ruling::of(&record(State::Approved, "f", None)) }),
        ("succeed", conclude(1, State::Succeeded)),
        ("fail", conclude(1, State::Failed)),
        ("not executed", conclude(1, State::NotExecuted)),
        ("unknown", conclude(1, State::Unknown)),
        ("died", Event::Died),
        ("again", Event::Again { attempt: 1, epoch: 1, by: 1 }),
        ("reconcile", Event::Reconcile { outcome: State::NotExecuted, note: note(Some("second")) }),
        ("found", Event::Found(note(None))),
        ("not found", Event::NotFound { asked: START.plus(MINUTE * 60), note: note(None) }),
        ("expire", Event::Expire),
    ]
}

fn comment() -> Handled {
    Handled::Commented(crate::store::Comment { by: "eve".into(), at: START, text: "seen".into() })
}

fn renewal() -> super::Renewal {
    let digest = Digest::of(b"moved");
    super::Renewal {
        terms: terms(Tier::Medium, &[], 1),
        digest,
        preview: None,
        config_digest: digest,
        policy_digest: digest,
        note: note(None),
    }
}

fn renew() -> Event {
    Event::Renew(Box::new(renewal()))
}

fn edit() -> Event {
    let r = record(State::Held, "f", None);
    Event::Edit(Box::new(super::Editing {
        request: StoredRequest { content_type: Some("text/plain".into()), ..r.request },
        arguments: serde_json::json!({"amount": 4}).into(),
        schema_digest: r.schema_digest,
        title: "Smaller".into(),
        target: None,
        money: Some((4, "EUR".into())),
        edit: Edit { person: "eve".into(), aliases: vec![], at: START, note: "less".into(), changes: vec![] },
        changes: vec![],
        renewal: renewal(),
    }))
}

#[test]
fn an_edit_keeps_what_the_agent_asked_for_and_clears_votes() {
    let asked = record(State::Held, "f", None);
    let voted = apply(&asked, Event::Vote { approval: approval("a"), last: false }, START).unwrap();
    let once = apply(&voted, edit(), START).unwrap();
    let twice = apply(&once, edit(), START).unwrap();
    assert_eq!((once.state, once.approvals.len(), once.renewals), (State::Held, 0, 1));
    assert_eq!((once.title.as_str(), once.fingerprint), ("Smaller", asked.fingerprint));
    let kept = twice.edited.unwrap();
    assert_eq!((&kept.request, &kept.arguments, kept.digest), (&asked.request, &asked.arguments, asked.digest));
    assert_eq!(kept.edits.len(), 2);
}

fn in_state(state: State) -> CallRecord {
    let mut r = record(State::Held, "f", None);
    r.state = state;
    r.expires = Some(START.plus(MINUTE));
    r.window_closes = Some(START.plus(MINUTE));
    (r.attempt, r.epoch) = (1, 1);
    r.opinion = Some(Box::new(Opinion {
        person: "first".into(),
        aliases: Vec::new(),
        outcome: State::NotExecuted,
        reason: "looked".into(),
        at: START,
    }));
    (r.begun, r.quiet_after) = (Some(START), Some(START));
    r.resend = Some(Resend { by: super::super::ResendBy::Header, attempts: 3 });
    if state == State::Dispatching {
        r.quiet_after = Some(START.plus(MINUTE));
    }
    r
}

#[test]
fn the_diagram_has_these_arrows_and_no_others() {
    use State::{Approved, Dispatching, Failed, Held, NotExecuted, Rejected, Revoked, Succeeded, Unknown, Withdrawn};
    let arrows: &[(State, &str, State)] = &[
        (Held, "vote", Held),
        (Held, "last vote", Approved),
        (Held, "renew", Held),
        (Held, "edit", Held),
        (Held, "comment", Held),
        (Held, "claim", Held),
        (Held, "halt", Held),
        (Approved, "halt", Approved),
        (Unknown, "comment", Unknown),
        (Held, "reject", Rejected),
        (Held, "withdraw", Withdrawn),
        (Held, "revoke", Revoked),
        (Approved, "renew", Held),
        (Approved, "wait", Approved),
        (Approved, "reject", Revoked),
        (Approved, "withdraw", Withdrawn),
        (Approved, "revoke", Revoked),
        (Approved, "begin", Dispatching),
        (Dispatching, "succeed", Succeeded),
        (Dispatching, "fail", Failed),
        (Dispatching, "not executed", NotExecuted),
        (Dispatching, "unknown", Unknown),
        (Dispatching, "died", Unknown),
        (Dispatching, "again", Dispatching),
        (Unknown, "succeed", Succeeded),
        (Unknown, "fail", Failed),
        (Unknown, "reconcile", NotExecuted),
        (Unknown, "found", Succeeded),
        (Unknown, "not found", NotExecuted),
    ];
    for state in State::ALL {
        for (name, event) in events() {
            let wanted = arrows.iter().find(|(s, n, _)| (*s, *n) == (state, name)).map(|(_, _, to)| *to);
            assert_eq!(allowed(&in_state(state), &event, START), wanted, "{state:?} {name}");
        }
    }
}

#[test]
fn once_its_time_is_over_only_the_expiry_is_left() {
    for state in [State::Held, State::Approved] {
        let over = START.plus(MINUTE);
        for (name, event) in events() {
            // A pause that began before its end, and was not written into it then.
            let wanted = match name {
                "expire" => Some(State::Expired),
                "halt" => Some(state),
                _ => None,
            };
            assert_eq!(allowed(&in_state(state), &event, over), wanted, "{state:?} {name}");
        }
    }
}

#[test]
fn while_its_clocks_stand_still_nothing_is_over_and_nothing_begins() {
    for state in [State::Held, State::Approved] {
        let halted = apply(&in_state(state), Event::Halt(START), START).unwrap();
        let later = START.plus(MINUTE * 60);
        for (name, event) in events() {
            let wanted = match name {
                "expire" | "begin" | "halt" => None,
                "continue" => Some(state),
                _ => allowed(&in_state(state), &event, START),
            };
            assert_eq!(allowed(&halted, &event, later), wanted, "{state:?} {name}");
        }
        let goes_on = apply(&halted, Event::Continue, later).unwrap();
        assert_eq!((goes_on.expires, goes_on.window_closes), (Some(later.plus(MINUTE)), Some(later.plus(MINUTE))));
    }
}

#[test]
fn an_expiry_says_what_did_not_happen_in_time() {
    let over = START.plus(MINUTE);
    let text = |state| apply(&in_state(state), Event::Expire, over).unwrap().note.unwrap().text;
    assert_eq!(text(State::Held), "nobody decided in time");
    assert_eq!(text(State::Approved), "approved, but not sent before its window closed");
}

#[test]
fn the_fourth_renewal_is_stale_and_clears_votes_like_the_others() {
    let mut r = record(State::Held, "f", None);
    for n in 1..=3 {
        r = apply(&r, Event::Vote { approval: approval("a"), last: true }, START).unwrap();
        assert_eq!(r.state, State::Approved);
        r = apply(&r, renew(), START).unwrap();
        assert_eq!((r.state, r.renewals, r.approvals.len(), r.window_closes), (State::Held, n, 0, None));
    }
    assert_eq!(apply(&r, renew(), START).unwrap().state, State::Stale);
}

#[test]
fn another_attempt_or_epoch_changes_nothing() {
    let r = in_state(State::Dispatching);
    assert!(apply(&r, conclude(2, State::Succeeded), START).is_err());
    let other = Event::Conclude { attempt: 1, epoch: 2, state: State::Succeeded, answer: None, note: None };
    assert!(apply(&r, other, START).is_err());
}

#[test]
fn one_person_cannot_settle_an_unknown_call_alone() {
    let r = in_state(State::Unknown);
    for by in [None, Some("first")] {
        let event = Event::Reconcile { outcome: State::NotExecuted, note: note(by) };
        assert!(apply(&r, event, START).is_err());
    }
    let other = Event::Reconcile { outcome: State::Succeeded, note: note(Some("second")) };
    assert!(apply(&r, other, START).is_err());
}

#[test]
fn before_quiescence_nobody_says_that_an_unknown_call_was_not_executed() {
    let mut r = in_state(State::Unknown);
    let quiet = START.plus(MINUTE * 10);
    r.quiet_after = Some(quiet);
    let opine = |outcome| {
        Event::Opine(Opinion { person: "x".into(), aliases: Vec::new(), outcome, reason: "x".into(), at: START })
    };
    let settle = |outcome| Event::Reconcile { outcome, note: note(Some("second")) };
    let not_found = |asked| Event::NotFound { asked, note: note(None) };
    let early = quiet.minus(std::time::Duration::from_millis(1));
    for event in [opine(State::NotExecuted), settle(State::NotExecuted), not_found(early), not_found(quiet)] {
        assert_eq!(allowed(&r, &event, early), None, "{event:?}");
    }
    assert_eq!(allowed(&r, &not_found(early), quiet), None, "the read was begun before");
    for event in [settle(State::NotExecuted), not_found(quiet)] {
        assert_eq!(allowed(&r, &event, quiet), Some(State::NotExecuted), "{event:?}");
    }
    assert_eq!(allowed(&r, &opine(State::Succeeded), START), Some(State::Unknown));
    assert_eq!(allowed(&r, &opine(State::Failed), quiet), None, "no word of people");
    r.opinion = Some(Box::new(Opinion {
        person: "first".into(),
        aliases: Vec::new(),
        outcome: State::Succeeded,
        reason: "x".into(),
        at: START,
    }));
    assert_eq!(allowed(&r, &settle(State::Succeeded), START), Some(State::Succeeded));
    // A record of an older version has only its begin.
    (r.quiet_after, r.quiet_for) = (None, MINUTE * 10);
    assert_eq!(allowed(&r, &not_found(early), early), None);
    assert_eq!(allowed(&r, &not_found(quiet), quiet), Some(State::NotExecuted));
}

#[test]
fn another_attempt_needs_a_declaration_an_attempt_left_and_time() {
    let again = Event::Again { attempt: 1, epoch: 1, by: 2 };
    let r = in_state(State::Dispatching);
    let next = apply(&r, again.clone(), START).unwrap();
    assert_eq!((next.state, next.attempt, next.epoch), (State::Dispatching, 2, 2));
    assert!(apply(&next, again.clone(), START).is_err(), "another one has followed it already");
    assert!(apply(&next, conclude(1, State::Succeeded), START).is_err(), "a stale attempt concludes nothing");
    let late = Event::Conclude { attempt: 2, epoch: 2, state: State::NotExecuted, answer: None, note: None };
    assert!(apply(&next, late, START).is_err(), "the first attempt may have had its effect");
    let at = START.plus(MINUTE);
    assert!(apply(&r, again.clone(), at).is_err(), "quiescence has come");
    for resend in [None, r.resend.map(|r| Resend { attempts: 1, ..r })] {
        assert!(apply(&CallRecord { resend, ..r.clone() }, again.clone(), START).is_err(), "{resend:?}");
    }
}

/// A small generator, so that a failing seed can be tried again.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// What the drawing says, written out a second time: state, event, where it leads. Time and attempts stand in [`Model`].
const ARROWS: &[(&str, &str, &str)] = &[
    ("held", "vote", "held"),
    ("held", "last vote", "approved"),
    ("held", "attach", "held"),
    ("held", "fetch", "held"),
    ("held", "claim", "held"),
    ("held", "comment", "held"),
    ("unknown", "comment", "unknown"),
    ("held", "renew", "held"),
    ("held", "edit", "held"),
    ("held", "reject", "rejected"),
    ("held", "withdraw", "withdrawn"),
    ("held", "revoke", "revoked"),
    ("held", "expire", "expired"),
    ("approved", "renew", "held"),
    ("approved", "wait", "approved"),
    ("approved", "reject", "revoked"),
    ("approved", "withdraw", "withdrawn"),
    ("approved", "revoke", "revoked"),
    ("approved", "expire", "expired"),
    ("approved", "begin", "dispatching"),
    ("dispatching", "again", "dispatching"),
    ("dispatching", "succeed", "succeeded"),
    ("dispatching", "fail", "failed"),
    ("dispatching", "not executed", "not_executed"),
    ("dispatching", "unknown", "unknown"),
    ("dispatching", "died", "unknown"),
    ("unknown", "succeed", "succeeded"),
    ("unknown", "fail", "failed"),
    ("unknown", "says succeeded", "unknown"),
    ("unknown", "says not executed", "unknown"),
    ("unknown", "settles succeeded", "succeeded"),
    ("unknown", "settles not executed", "not_executed"),
    ("unknown", "found", "succeeded"),
    ("unknown", "not found", "not_executed"),
];

/// An independent account of one call: minutes since the start, small numbers, no records.
#[derive(Debug, Clone)]
struct Model {
    state: &'static str,
    /// When its vote time or its window is over.
    ends: Option<u32>,
    quiet: u32,
    attempt: u32,
    renewals: u32,
    opinion: Option<(&'static str, &'static str)>,
    declared: bool,
    unknowns_left: u32,
}

/// What an event says beside its name.
#[derive(Debug, Clone, Copy)]
struct Said {
    attempt: u32,
    epoch: u64,
    person: &'static str,
    asked: u32,
}

impl Model {
    /// Where it leads, by the drawing and by the rules of time and attempts.
    fn leads(&self, name: &str, said: Said, now: u32) -> Option<&'static str> {
        let over = self.ends.is_some_and(|end| now >= end);
        if over != (name == "expire") && self.ends.is_some() || (name == "expire" && !over) {
            return None;
        }
        let to = ARROWS.iter().find(|(from, by, _)| (*from, *by) == (self.state, name)).map(|(_, _, to)| *to)?;
        let own = said.attempt == self.attempt && said.epoch == 1;
        let seconded = |word: &str| self.opinion.is_some_and(|(who, what)| what == word && who != said.person);
        let stands = match name {
            "again" => own && self.declared && self.attempt < 3 && now < self.quiet,
            "not executed" => own && self.attempt == 1,
            "succeed" | "fail" | "unknown" => own,
            "says not executed" => now >= self.quiet,
            "settles succeeded" => seconded("succeeded"),
            "settles not executed" => now >= self.quiet && seconded("not executed"),
            "not found" => now >= self.quiet && said.asked >= self.quiet,
            _ => true,
        };
        let to = if matches!(name, "renew" | "edit") && self.renewals == 3 { "stale" } else { to };
        stands.then_some(to)
    }

    fn follow(&mut self, name: &str, said: Said, to: &'static str, now: u32) {
        self.unknowns_left += u32::from(self.state == "unknown" && to != "unknown");
        self.ends = match (name, to) {
            ("last vote", _) => Some(now + 15),
            ("renew" | "edit", "held") => Some(now + 60),
            (_, "held" | "approved") => self.ends,
            _ => None,
        };
        match name {
            "begin" | "again" => (self.attempt, self.quiet) = (self.attempt + 1, now + 10),
            "renew" | "edit" => self.renewals += 1,
            "says succeeded" => self.opinion = Some((said.person, "succeeded")),
            "says not executed" => self.opinion = Some((said.person, "not executed")),
            _ => {}
        }
        self.state = to;
    }
}

const NAMES: [&str; 27] = [
    "vote",
    "last vote",
    "attach",
    "fetch",
    "claim",
    "comment",
    "renew",
    "edit",
    "reject",
    "withdraw",
    "revoke",
    "expire",
    "wait",
    "begin",
    "again",
    "succeed",
    "fail",
    "not executed",
    "unknown",
    "died",
    "says succeeded",
    "says not executed",
    "settles succeeded",
    "settles not executed",
    "found",
    "not found",
    // Often, or random walks rarely get past it.
    "last vote",
];

fn event(name: &str, said: Said, r: &CallRecord) -> Event {
    let ended = |state| Event::Conclude { attempt: said.attempt, epoch: said.epoch, state, answer: None, note: None };
    let word =
        |outcome| Opinion { person: said.person.into(), aliases: Vec::new(), outcome, reason: "x".into(), at: START };
    let settle = |outcome| Event::Reconcile { outcome, note: note(Some(said.person)) };
    match name {
        "vote" => Event::Vote { approval: approval("a"), last: false },
        "last vote" => Event::Vote { approval: approval("a"), last: true },
        "attach" => Event::Attach(evidence()),
        "fetch" => Event::Fetch(vec![evidence()], Vec::new()),
        "renew" => renew(),
        "edit" => edit(),
        "reject" => Event::Reject(note(None), None),
        "withdraw" => Event::Withdraw(note(None)),
        "revoke" => Event::Revoke(note(None)),
        "expire" => Event::Expire,
        "claim" => Event::Handle(Handled::Released),
        "comment" => Event::Handle(comment()),
        "wait" => Event::Wait(note(None)),
        "begin" => Event::Begin { epoch: 1, charges: vec![], ruling: Ruling::of(r) },
        "again" => Event::Again { attempt: said.attempt, epoch: said.epoch, by: 1 },
        "succeed" => ended(State::Succeeded),
        "fail" => ended(State::Failed),
        "not executed" => ended(State::NotExecuted),
        "unknown" => ended(State::Unknown),
        "died" => Event::Died,
        "says succeeded" => Event::Opine(word(State::Succeeded)),
        "says not executed" => Event::Opine(word(State::NotExecuted)),
        "settles succeeded" => settle(State::Succeeded),
        "settles not executed" => settle(State::NotExecuted),
        "found" => Event::Found(note(None)),
        _ => Event::NotFound { asked: START.plus(MINUTE * said.asked), note: note(None) },
    }
}

fn evidence() -> Evidence {
    let digest = Digest::of(b"e");
    Evidence {
        id: crate::call::ArtifactId::new(),
        kind: "ticket".into(),
        title: "T".into(),
        by: "bot".into(),
        content: crate::store::PayloadRef { seq: 1, index: 0, len: 1, digest },
        at: START,
    }
}

/// Either a hold, or a call that policy let go by itself and that is under way.
fn start(random: &mut Lcg) -> (CallRecord, Model) {
    let declared = random.next(2) == 0;
    let mut r = record(State::Held, "f", None);
    r.resend = declared.then_some(Resend { by: super::super::ResendBy::Repeatable, attempts: 3 });
    let mut m = Model {
        state: "held",
        ends: Some(60),
        quiet: 0,
        attempt: 0,
        renewals: 0,
        opinion: None,
        declared,
        unknowns_left: 0,
    };
    if random.next(2) == 0 {
        (r.terms, r.expires) = (None, None);
        begin(&mut r, 1, vec![], START);
        (m.state, m.ends, m.quiet, m.attempt) = ("dispatching", None, 10, 1);
    }
    (r, m)
}

#[test]
fn random_walks_go_where_the_drawing_goes_and_nowhere_else() {
    let mut walked = std::collections::BTreeSet::new();
    for seed in 0..20_000 {
        let mut random = Lcg(seed);
        let (mut r, mut m) = start(&mut random);
        let mut minutes: u32 = 0;
        for _ in 0..40 {
            minutes += [0, 0, 1, 3, 9, 16][random.next(6)];
            let name = NAMES[random.next(NAMES.len())];
            let said = Said {
                attempt: u32::try_from(random.next(3)).unwrap() + 1,
                epoch: if random.next(8) == 0 { 2 } else { 1 },
                person: ["eve", "max"][random.next(2)],
                asked: minutes.saturating_sub(u32::try_from(random.next(3)).unwrap()),
            };
            let at = format!("seed {seed}: {name} {said:?} at {minutes} of {m:?}");
            let wanted = m.leads(name, said, minutes);
            match apply(&r, event(name, said, &r), START.plus(MINUTE * minutes)) {
                Err(_) => assert_eq!(wanted, None, "{at}: refused"),
                Ok(next) => {
                    assert_eq!(Some(next.state.as_str()), wanted, "{at}");
                    assert!(!r.state.is_final(), "{at}: a final state changed");
                    assert_eq!(next.version, r.version + 1, "{at}");
                    walked.insert((m.state, name, next.state.as_str()));
                    m.follow(name, said, next.state.as_str(), minutes);
                    r = next;
                }
            }
            assert_eq!((r.state.as_str(), r.attempt, r.renewals), (m.state, m.attempt, m.renewals), "{at}");
            assert!(m.unknowns_left <= 1 && m.renewals <= 4 && (m.renewals < 4 || m.state == "stale"), "{at}");
            assert!(r.attempt <= if m.declared { 3 } else { 1 }, "{at}: sent too often");
        }
    }
    // Every arrow was walked; what was walked besides is the fourth renewal.
    let drawn: std::collections::BTreeSet<_> = ARROWS.iter().copied().collect();
    let stale = [("approved", "renew", "stale"), ("held", "edit", "stale"), ("held", "renew", "stale")];
    assert_eq!(walked.difference(&drawn).copied().collect::<Vec<_>>(), stale);
    assert_eq!(drawn.difference(&walked).count(), 0, "{:?}", drawn.difference(&walked).collect::<Vec<_>>());
}

#[test]
fn the_names_of_steps_say_what_became_of_the_hold() {
    assert_eq!(Step::Parked.of_hold(State::Held), Some("hold.created"));
    assert_eq!(Step::Renewed.of_hold(State::Stale), Some("hold.stale"));
    assert_eq!(Step::Renewed.of_hold(State::Held), Some("hold.updated"));
    assert_eq!(Step::Rejected.of_hold(State::Revoked), Some("hold.revoked"));
    assert_eq!(Step::Reconciled.of_hold(State::NotExecuted), Some("hold.not_executed"));
    assert_eq!(Step::Collected.of_hold(State::Succeeded), None);
}
