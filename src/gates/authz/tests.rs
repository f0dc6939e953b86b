//! The ladder on the shipped policies, and every trap that must refuse.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cedar_policy::{Authorizer, Decision, Entities, PolicySet, Request};
use proptest::prelude::{Just, Strategy, prop_oneof, proptest};
use serde_json::{Value, json};

use super::ask::Asking;
use super::slice::{Slice, Wants};
use super::{
    AdminAnswer, AdminQuestion, AdminResource, GivenApprovals, HoldFacts, Permit, Policies, Question, Release, Verdict,
    context,
};
use crate::call::{Code, Facts, Principal, Refusal, Terms, Tier, Timestamp};
use crate::policy::sample::{call, facts, loaded, model, shipped, support_bot};
use crate::policy::{Loaded, Model};

fn policies(loaded: Loaded) -> Policies {
    Policies::new(loaded, Arc::new(|_| {})).unwrap()
}

fn ask(set: &Policies, name: &str, arguments: Value, f: &Facts) -> Result<Verdict, Refusal> {
    set.authorize(&support_bot(), &call(set.loaded().model(), name, arguments), f)
}

fn refund(amount: i64) -> Value {
    json!({"orderId": "o1", "customerId": "c1", "amountMinor": amount, "currency": "EUR"})
}

#[track_caller]
fn allowed(verdict: Result<Verdict, Refusal>) -> Permit {
    match verdict.unwrap() {
        Verdict::Allow(permit) => permit,
        Verdict::Hold(terms) => panic!("held: {terms:?}"),
    }
}

#[track_caller]
fn held(verdict: Result<Verdict, Refusal>) -> Terms {
    match verdict.unwrap() {
        Verdict::Hold(terms) => terms,
        Verdict::Allow(permit) => panic!("allowed: {permit:?}"),
    }
}

fn why(terms: &Terms) -> Vec<(&str, u8)> {
    terms.why.iter().map(|w| (w.policy.as_str(), w.rung)).collect()
}

#[test]
fn the_ladder_of_the_shipped_policies() {
    let set = policies(shipped());
    let f = facts();
    let permit = allowed(ask(&set, "crm.get_customer", json!({"customerId": "c1"}), &f));
    assert_eq!((permit.tier(), permit.policies()), (Tier::Low, ["reads-auto".to_owned()].as_slice()));
    assert_eq!(permit.policy_digest(), set.digest());
    assert_eq!(allowed(ask(&set, "crm.refund", refund(1200), &f)).policies(), ["support-may-attempt"]);

    let mut first = facts();
    first.history.first_time_target = true;
    let t = held(ask(&set, "crm.refund", refund(1200), &first));
    assert_eq!((t.tier, why(&t)), (Tier::Medium, vec![("refund-review", 1)]));
    let t = held(ask(&set, "crm.refund", refund(8800), &f));
    assert_eq!((t.tier, why(&t)), (Tier::Medium, vec![("refund-review", 1)]));
    let t = held(ask(&set, "crm.refund", refund(88_000), &f));
    assert_eq!((t.tier, why(&t)), (Tier::High, vec![("refund-review", 1), ("refund-dual", 2)]));

    let mut near = facts();
    near.budget.org.used_pct = 93;
    let t = held(ask(&set, "crm.refund", refund(1200), &near));
    assert_eq!((t.tier, why(&t)), (Tier::Medium, vec![("budget-near", 1)]));
    let mut gone = facts();
    gone.budget.step.used_pct = 101;
    let refusal = ask(&set, "crm.refund", refund(1200), &gone).unwrap_err();
    assert_eq!((refusal.code(), refusal.policies()[0].id.as_str()), (Code::Forbidden, "budget-gone"));
    assert_eq!(refusal.extra("degrade"), Some(&json!("cache=15m,else=handoff")));

    assert_eq!(
        allowed(ask(&set, "crm.update_customer", json!({"customerId": "c1", "email": "e"}), &f)).tier(),
        Tier::Low
    );
    let raise = json!({"customerId": "c1", "creditLimitMinor": 900_000});
    let refusal = ask(&set, "crm.update_customer", raise, &f).unwrap_err();
    assert_eq!(refusal.policies().iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["credit-limit-never"]);
    assert!(refusal.public_text().starts_with("Agents do not change credit limits."), "{}", refusal.public_text());
    let t = held(ask(&set, "tickets.delete_ticket", json!({"ticketId": "t", "hard": true}), &f));
    assert_eq!((t.tier, why(&t)), (Tier::High, vec![("hard-delete-dual", 2)]));
    assert_eq!(allowed(ask(&set, "tickets.delete_ticket", json!({"ticketId": "t"}), &f)).tier(), Tier::Low);
}

#[test]
fn thresholds_are_exact() {
    let set = policies(shipped());
    let tier = |amount| match ask(&set, "crm.refund", refund(amount), &facts()).unwrap() {
        Verdict::Allow(permit) => permit.tier(),
        Verdict::Hold(terms) => terms.tier,
    };
    let rows = [(5000, Tier::Low), (5001, Tier::Medium), (50_000, Tier::Medium), (50_001, Tier::High)];
    rows.into_iter().for_each(|(amount, want)| assert_eq!(tier(amount), want, "{amount}"));
}

#[test]
fn obligations_are_read_per_policy_and_never_merged() {
    let set = policies(shipped());
    let t = held(ask(&set, "crm.refund", refund(88_000), &facts()));
    let groups: Vec<_> = t.needs.requirements.iter().map(|r| (r.policy.as_str(), r.groups.join(","), r.all)).collect();
    let want = [
        ("refund-review", "support-leads".to_owned(), true),
        ("refund-dual", "support-leads,finance".to_owned(), true),
    ];
    assert_eq!(groups, want);
    assert_eq!((t.needs.people, t.needs.justification), (2, true));
    assert_eq!(t.needs.evidence, ["order", "ticket"]);
    let minutes = |m: u64| Duration::from_secs(m * 60);
    assert_eq!((t.sla, t.expires, t.window), (minutes(10), minutes(30), minutes(30)));
    let t = held(ask(&set, "crm.refund", refund(8800), &facts()));
    assert_eq!((t.needs.people, t.needs.justification, t.sla, t.expires), (1, false, minutes(15), minutes(240)));
    assert!(t.why[0].at.ends_with("agents.cedar:31"), "{}", t.why[0].at);

    let mut near = facts();
    near.budget.org.used_pct = 93;
    let t = held(ask(&set, "crm.refund", refund(1200), &near));
    assert_eq!(t.needs.requirements[0].groups, ["support-leads"], "workflow-owner is resolved");
}

#[test]
fn nobody_else_gets_in() {
    let set = policies(shipped());
    let stranger = Principal { groups: vec!["sales".to_owned()], ..support_bot() };
    let c = call(set.loaded().model(), "crm.get_customer", json!({"customerId": "c1"}));
    let refusal = set.authorize(&stranger, &c, &facts()).unwrap_err();
    assert_eq!((refusal.code(), refusal.policies().len()), (Code::Forbidden, 0));
}

#[test]
fn a_release_asks_again_with_what_was_given() {
    let set = policies(shipped());
    let c = call(set.loaded().model(), "crm.refund", refund(8800));
    let p = support_bot();
    let given = |granted, dual| GivenApprovals { granted, dual };
    let release = |f: &Facts, a| set.authorize_release(&p, &c, f, &a);
    let Release::Allow(permit) = release(&facts(), given(true, false)).unwrap() else { panic!("stronger") };
    assert_eq!((permit.tier(), permit.call()), (Tier::Medium, c.id()));
    let Release::Stronger(terms) = release(&facts(), given(false, false)).unwrap() else { panic!("allowed") };
    assert_eq!(terms.tier, Tier::Medium);
    let mut gone = facts();
    gone.budget.run.used_pct = 100;
    assert_eq!(release(&gone, given(true, true)).unwrap_err().code(), Code::Revoked);

    let large = call(set.loaded().model(), "crm.refund", refund(88_000));
    let Release::Stronger(terms) = set.authorize_release(&p, &large, &facts(), &given(true, false)).unwrap() else {
        panic!("allowed")
    };
    assert_eq!((terms.tier, why(&terms)), (Tier::High, vec![("refund-review", 1), ("refund-dual", 2)]));
    let out = set.authorize_release(&p, &large, &facts(), &given(false, true)).unwrap();
    assert!(matches!(out, Release::Allow(p) if p.tier() == Tier::High), "dual implies granted");
}

/// A permit on refunds and a forbid whose condition is `broken`, which overflows for large amounts.
fn erring(body: &str) -> (Policies, Arc<Mutex<Vec<String>>>) {
    let text = format!(
        "@id(\"base\") permit(principal, action == Holdpoint::Action::\"crm.refund\", resource);\n\
         @id(\"errs\") @reason(\"r\") @approvers(\"finance\")\n\
         forbid(principal, action == Holdpoint::Action::\"crm.refund\", resource) {body};"
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let hook = move |id: &str| heard.lock().unwrap().push(id.to_owned());
    (Policies::new(loaded(&text), Arc::new(hook)).unwrap(), seen)
}

/// What plain Cedar would say to the same question.
fn plain_cedar(set: &Policies, arguments: Value, tier: Tier) -> Decision {
    let c = call(set.loaded().model(), "crm.refund", arguments);
    let slice = &set.slices["crm.refund"];
    let asking = Asking::new(slice, &Question::of(&support_bot(), &c, &facts())).unwrap();
    let (request, entities) = asking.at(tier).unwrap();
    Authorizer::new().is_authorized(&request, &slice.set, entities).decision()
}

#[test]
fn a_policy_that_errs_refuses_where_plain_cedar_allows() {
    // At every rung.
    let overflow = "when { context.input.amountMinor * 1000000000000 > 5 } unless { context.approval.granted }";
    let (set, seen) = erring(overflow);
    assert_eq!(plain_cedar(&set, refund(100_000_000), Tier::Low), Decision::Allow);
    let refusal = ask(&set, "crm.refund", refund(100_000_000), &facts()).unwrap_err();
    assert_eq!((refusal.code(), refusal.extra("policy_error")), (Code::Forbidden, Some(&json!("errs"))));
    assert_eq!(*seen.lock().unwrap(), ["errs"]);
    assert!(matches!(ask(&set, "crm.refund", refund(1), &facts()), Ok(Verdict::Hold(_))));
    let c = call(set.loaded().model(), "crm.refund", refund(100_000_000));
    let out = set.authorize_release(&support_bot(), &c, &facts(), &GivenApprovals { granted: true, dual: false });
    assert_eq!(out.unwrap_err().code(), Code::Revoked);

    // Only while nothing is granted: higher rungs never reach the part that errs.
    let lazy = "when { context.input.amountMinor > 5 }\n\
                unless { context.approval.granted || context.input.amountMinor * 1000000000000 < 0 }";
    let (set, _) = erring(lazy);
    assert_eq!(plain_cedar(&set, refund(100_000_000), Tier::Low), Decision::Allow);
    assert_eq!(plain_cedar(&set, refund(100_000_000), Tier::Medium), Decision::Allow);
    let refusal = ask(&set, "crm.refund", refund(100_000_000), &facts()).unwrap_err();
    assert_eq!(refusal.extra("policy_error"), Some(&json!("errs")));

    // Only once something is granted.
    let eager = "when { context.input.amountMinor > 5 }\n\
                 unless { context.approval.granted && context.input.amountMinor * 1000000000000 > 0 }";
    let (set, _) = erring(eager);
    assert_eq!(plain_cedar(&set, refund(100_000_000), Tier::Low), Decision::Deny);
    assert_eq!(plain_cedar(&set, refund(100_000_000), Tier::Medium), Decision::Allow);
    assert!(ask(&set, "crm.refund", refund(100_000_000), &facts()).unwrap_err().extra("policy_error").is_some());
}

fn hold(tier: Tier, requested_by: Option<&'static str>) -> AdminResource<'static> {
    AdminResource::Hold(HoldFacts {
        id: "hold_1".to_owned(),
        tool: "crm",
        tier,
        workflow: "refunds",
        requested_by,
        approvers: vec!["support-leads", "finance"],
        amount_minor: Some(88_000),
    })
}

fn admin(set: &Policies, user: &str, group: &str, action: &str, resource: AdminResource<'_>, mfa: bool) -> AdminAnswer {
    set.admin(&AdminQuestion {
        user,
        groups: &[group.to_owned()],
        email: None,
        action,
        resource,
        mfa,
        channel: "page",
        now: Timestamp::from_millis(0),
    })
}

#[test]
fn the_admin_plane_of_the_shipped_policies() {
    let set = policies(shipped());
    let because = |a: &AdminAnswer| a.because.iter().map(|n| n.id.clone()).collect::<Vec<_>>();
    let yes = admin(&set, "maya", "support-leads", "hold.approve", hold(Tier::High, Some("ana")), true);
    assert_eq!((yes.allowed, because(&yes)), (true, vec!["leads-review".to_owned()]));
    assert!(admin(&set, "finn", "finance", "hold.reject", hold(Tier::Medium, None), false).allowed);
    assert!(!admin(&set, "dana", "data-stewards", "hold.view", hold(Tier::Medium, None), true).allowed);
    let own = admin(&set, "maya", "support-leads", "hold.approve", hold(Tier::Medium, Some("maya")), true);
    assert_eq!((own.allowed, because(&own)), (false, vec!["four-eyes".to_owned()]));
    let weak = admin(&set, "maya", "support-leads", "hold.approve", hold(Tier::High, None), false);
    assert_eq!((weak.allowed, because(&weak)), (false, vec!["high-tier-needs-mfa-and-page".to_owned()]));
    assert!(admin(&set, "pat", "platform", "audit.read", AdminResource::System, false).allowed);
    assert!(admin(&set, "pat", "platform", "call.view", hold(Tier::Low, None), false).allowed);
    assert!(!admin(&set, "pat", "platform", "hold.approve", hold(Tier::Medium, None), true).allowed);
    for wrong in ["crm.refund", "hold.aprove", "call", "admin"] {
        assert!(!admin(&set, "maya", "support-leads", wrong, hold(Tier::Medium, None), true).allowed, "{wrong}");
    }
    assert!(!admin(&set, "pat", "platform", "audit.read", hold(Tier::Low, None), true).allowed, "wrong resource");
}

#[test]
fn what_the_admin_plane_is_asked_fits_the_schema() {
    let set = policies(shipped());
    let (groups, email) = (["support-leads".to_owned()], Some("m@acme.dev"));
    let resource = hold(Tier::High, Some("ana"));
    let now = Timestamp::from_millis(0);
    let q = AdminQuestion {
        user: "maya",
        groups: &groups,
        email,
        action: "hold.view",
        resource,
        mfa: true,
        channel: "page",
        now,
    };
    let entities = set.admin_entities(&q).unwrap().into_iter();
    let own = entities.filter(|e| e.uid().type_name().basename() != "Action");
    assert!(Entities::from_entities(own, Some(set.loaded().schema())).is_ok());
}

#[test]
fn policies_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Policies>();
}

#[test]
fn an_admin_policy_that_errs_refuses() {
    let text = "@id(\"all\") permit(principal, action in Holdpoint::Action::\"admin\", resource);\n\
                @id(\"errs\") @reason(\"r\") forbid(principal, action == Holdpoint::Action::\"hold.approve\", resource)\n\
                when { resource has amountMinor && resource.amountMinor * 9000000000000000 > 5 };";
    let set = policies(loaded(text));
    assert!(!admin(&set, "maya", "support-leads", "hold.approve", hold(Tier::Medium, None), true).allowed);
    assert!(admin(&set, "maya", "support-leads", "hold.reject", hold(Tier::Medium, None), true).allowed);
}

#[test]
fn no_agent_policy_opens_the_admin_plane() {
    let text = "@id(\"all\") permit(principal, action in Holdpoint::Action::\"call\", resource);";
    let set = policies(loaded(text));
    assert!(set.admin.is_empty());
    assert!(!admin(&set, "maya", "support-leads", "hold.view", hold(Tier::Medium, None), true).allowed);
    // Plain Cedar would let an unscoped permit in; the loader refuses it, and no admin set would hold it.
    let open: cedar_policy::Policy = "permit(principal, action, resource);".parse().unwrap();
    let mut policy = set.loaded().policies()[0].as_ref().clone();
    policy.cedar = open;
    assert!(policy.covers(&model().operations[0]) && policy.plane == crate::policy::Plane::Agent);
}

#[test]
fn an_operation_shows_to_those_whom_a_permit_may_reach() {
    let set = policies(shipped());
    let m = model();
    let op = |name: &str| m.operations.iter().find(|o| o.name == name).unwrap().clone();
    let bot = support_bot();
    assert!(set.visible(&bot, &op("crm.get_customer")) && set.visible(&bot, &op("crm.refund")));
    let stranger = Principal { groups: vec!["sales".to_owned()], ..support_bot() };
    assert!(!set.visible(&stranger, &op("crm.get_customer")));

    let text = "@id(\"all\") permit(principal is Holdpoint::Agent, action in Holdpoint::Action::\"call\", resource);\n\
                @id(\"no-crm\") @reason(\"r\") forbid(principal in Holdpoint::Org::\"acme\", \
                action in Holdpoint::Action::\"call\", resource == Holdpoint::Tool::\"crm\");\n\
                @id(\"some\") @reason(\"r\") forbid(principal, action == Holdpoint::Action::\"tickets.get_ticket\", resource)\n\
                when { context.call.stage == \"assist\" };";
    let set = policies(loaded(text));
    assert!(!set.visible(&bot, &op("crm.get_customer")), "an unconditional forbid hides");
    assert!(set.visible(&bot, &op("tickets.get_ticket")), "a conditional one does not");
    let other = Principal { org: "other".to_owned(), ..support_bot() };
    assert!(set.visible(&other, &op("crm.get_customer")));
}

/// Any call that the argument schemas of the toy tools accept.
fn any_call() -> impl Strategy<Value = (&'static str, Value)> {
    let text = "[a-z]{1,6}";
    prop_oneof![
        text.prop_map(|c| ("crm.get_customer", json!({"customerId": c}))),
        (1i64..100_000_000, proptest::option::of(text)).prop_map(|(n, why)| {
            let mut all = refund(n);
            if let Some(why) = why {
                all["reason"] = json!(why);
            }
            ("crm.refund", all)
        }),
        (text, proptest::option::of(0i64..1000)).prop_map(|(c, limit)| {
            ("crm.update_customer", json!({"customerId": c, "email": c, "creditLimitMinor": limit}))
        }),
        (text, proptest::option::of(proptest::bool::ANY))
            .prop_map(|(t, hard)| ("tickets.delete_ticket", json!({"ticketId": t, "hard": hard}))),
        Just(("tickets.search_tickets", json!({"query": "q", "limit": 3}))),
    ]
}

fn any_facts() -> impl Strategy<Value = Facts> {
    (0i64..120, proptest::bool::ANY, 0i64..200_000_000_000).prop_map(|(used, first, minutes)| {
        let mut f = facts();
        f.budget.user.used_pct = used;
        f.history.first_time_target = first;
        f.now = Timestamp::from_millis(minutes * 1000);
        f
    })
}

fn any_groups() -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(vec!["support".to_owned(), "sales".to_owned()], 0..=2)
}

/// The whole set, put with the whole context, all entities of the schema and Cedar's own checks on.
fn whole(
    set: &Policies,
    p: &Principal,
    name: &str,
    arguments: &Value,
    f: &Facts,
    tier: Tier,
) -> (Decision, Vec<String>) {
    let c = call(set.loaded().model(), name, arguments.clone());
    let mut full = Slice::new(set.loaded(), c.operation(), &set.loaded().slice(c.operation())).unwrap();
    full.wants = Wants::everything();
    full.approvals = context::approvals().unwrap();
    let schema = set.loaded().schema();
    let asking = Asking::new(&full, &Question::of(p, &c, f)).unwrap();
    let (request, entities) = asking.at(tier).unwrap();
    let (principal, action) = (request.principal().unwrap().clone(), request.action().unwrap().clone());
    let context = request.context().unwrap().clone();
    let request = Request::new(principal, action, request.resource().unwrap().clone(), context, Some(schema)).unwrap();
    let without_action = entities.clone().into_iter().filter(|e| e.uid().type_name().basename() != "Action");
    let entities = Entities::from_entities(without_action, Some(schema)).unwrap();
    let all = PolicySet::from_policies(set.loaded().policies().iter().map(|p| p.cedar.clone())).unwrap();
    let response = Authorizer::new().is_authorized(&request, &all, &entities);
    assert_eq!(response.diagnostics().errors().count(), 0);
    let mut reasons: Vec<_> = response.diagnostics().reason().map(ToString::to_string).collect();
    reasons.sort();
    (response.decision(), reasons)
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn a_slice_decides_as_the_whole_set_does((name, arguments) in any_call(), f in any_facts(), groups in any_groups()) {
        for set in [shared(), scopes()] {
            let p = Principal { groups: groups.clone(), ..support_bot() };
            let c = call(set.loaded().model(), name, arguments.clone());
            let asking = set.asking(&Question::of(&p, &c, &f)).unwrap();
            for tier in [Tier::Low, Tier::Medium, Tier::High] {
                let mut asked = set.ask(&asking, tier).unwrap();
                asked.policies.sort();
                let decision = if asked.allowed { Decision::Allow } else { Decision::Deny };
                assert_eq!((decision, asked.policies), whole(set, &p, name, &arguments, &f, tier), "{name} {arguments}");
            }
        }
    }

    #[test]
    fn more_approval_never_refuses_what_less_allowed((name, arguments) in any_call(), f in any_facts()) {
        let set = shared();
        let c = call(set.loaded().model(), name, arguments);
        let asking = set.asking(&Question::of(&support_bot(), &c, &f)).unwrap();
        let rungs = [Tier::Low, Tier::Medium, Tier::High].map(|t| set.ask(&asking, t).unwrap().allowed);
        assert!(rungs[0] <= rungs[1] && rungs[1] <= rungs[2]);
    }
}

/// Every kind of scope there is, and conditions that read whole records.
fn scopes() -> &'static Policies {
    const TEXT: &str = r#"
        @id("reads") permit(principal, action in Holdpoint::Action::"effect:read", resource is Holdpoint::Tool);
        @id("crm") permit(principal in Holdpoint::AgentGroup::"support", action in Holdpoint::Action::"tool:crm",
            resource == Holdpoint::Tool::"crm") when { principal has owner && principal.hasTag("scope") };
        @id("sales") permit(principal is Holdpoint::Agent in Holdpoint::AgentGroup::"sales",
            action in [Holdpoint::Action::"effect:irreversible", Holdpoint::Action::"crm.update_customer"],
            resource in Holdpoint::Tool::"tickets");
        @id("bot") permit(principal == Holdpoint::Agent::"support-bot", action == Holdpoint::Action::"crm.refund", resource)
            when { context.call has onBehalfOf && context.call.onBehalfOf has email && context.call.weekday < 6 };
        @id("night") @reason("r") @approvers("finance")
            forbid(principal in Holdpoint::Org::"acme", action in Holdpoint::Action::"effect:write", resource)
            when { context.call.now.toTime() > duration("20h") || action in Holdpoint::Action::"effect:money" }
            unless { context.approval.granted };
        @id("whole") @reason("r") @approvers("finance|support-leads")
            forbid(principal, action in Holdpoint::Action::"call", resource)
            when { context.budget == {step: context.budget.step, run: context.budget.run, user: context.budget.user,
                org: context.budget.org, worstPct: 55} || context.call.sourceIp.isInRange(ip("10.0.0.0/8")) }
            unless { context.approval.dual };
    "#;
    static SET: std::sync::OnceLock<Policies> = std::sync::OnceLock::new();
    SET.get_or_init(|| policies(loaded(TEXT)))
}

fn shared() -> &'static Policies {
    static SET: std::sync::OnceLock<Policies> = std::sync::OnceLock::new();
    SET.get_or_init(|| policies(shipped()))
}

#[test]
fn every_kind_of_argument_fits_the_generated_schema() {
    use crate::call::ToolKind;
    use crate::policy::sample::{READ, operation, tool};
    use crate::policy::{Defaults, Source, load_sources};
    let schema = json!({
        "type": "object",
        "properties": {
            "rate": {"type": "number"}, "n": {"type": "integer", "maximum": 9}, "odd name": {"type": "boolean"},
            "lines": {"type": "array", "items": {"type": "object", "properties": {
                "sku": {"type": "string"}, "gift": {"type": "boolean"}}, "required": ["sku"]}},
            "ship": {"type": "object", "properties": {"city": {"type": "string"}}},
            "tags": {"type": "array", "items": {"type": "string"}}
        },
        "required": ["rate", "lines"]
    });
    let op = operation(&tool("shop", ToolKind::Rest), "order", READ, Some(schema));
    let m = Model { operations: vec![Arc::new(op)], ..Model::default() };
    let text = "@id(\"a\") permit(principal, action == Holdpoint::Action::\"shop.order\", resource)\n\
                when { context.input.rate.lessThan(decimal(\"9.5\")) && context.input.lines_len < 3 };";
    let source = Source::new("t.cedar", text);
    let set = policies(load_sources(&[source], &m, Defaults::default()).unwrap());
    let good = json!({"rate": 1.25, "n": 3.0, "odd name": true, "lines": [{"sku": "a", "gift": true}, {"sku": "b"}],
        "ship": {"city": "x", "undeclared": [1]}, "tags": ["x", "x"], "undeclared": {"a": 1}});
    let p = support_bot();
    assert_eq!(whole(&set, &p, "shop.order", &good, &facts(), Tier::Low).0, Decision::Allow);
    let sparse = json!({"rate": 9, "lines": [], "n": null, "ship": null});
    assert_eq!(whole(&set, &p, "shop.order", &sparse, &facts(), Tier::Low).0, Decision::Allow);
    let none = Principal { acting_for: None, owner: None, ..support_bot() };
    assert_eq!(whole(&set, &none, "shop.order", &sparse, &facts(), Tier::Low).0, Decision::Allow);
    for bad in [json!({"rate": 0.00001, "lines": []}), json!({"rate": 1}), json!({"rate": "1", "lines": []})] {
        let c = call(&m, "shop.order", bad.clone());
        let input = &set.loaded().inputs()["shop.order"];
        let refusal = context::build(&Wants::everything(), input, &Question::of(&p, &c, &facts())).unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArguments, "{bad}");
    }
}

#[test]
fn the_person_acted_for_and_the_claims_are_what_was_proven() {
    let text = "@id(\"a\") permit(principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
                when { context.call has onBehalfOf && context.call.onBehalfOf has email\n\
                && context.call.onBehalfOf.email == \"ana@acme.dev\"\n\
                && principal.hasTag(\"scope\") && principal.getTag(\"scope\") == \"crm\" };";
    let set = policies(loaded(text));
    let c = call(set.loaded().model(), "crm.refund", refund(1));
    let tier = |p: &Principal| set.authorize(p, &c, &facts()).map(|v| matches!(v, Verdict::Allow(_)));
    assert_eq!(tier(&support_bot()), Ok(true));
    let none = Principal { acting_for: None, ..support_bot() };
    let silent = Principal { acting_for_email: None, ..support_bot() };
    let unscoped = Principal { claims: std::collections::BTreeMap::new(), ..support_bot() };
    for p in [none, silent, unscoped] {
        assert_eq!(tier(&p).unwrap_err().code(), Code::Forbidden);
    }
}

#[test]
fn at_high_each_group_of_a_policy_takes_a_person() {
    let text = "@id(\"a\") permit(principal, action == Holdpoint::Action::\"crm.refund\", resource);\n\
                @id(\"three\") @reason(\"r\") @approvers(\"finance,data-stewards,tool-owner\")\n\
                forbid(principal, action == Holdpoint::Action::\"crm.refund\", resource)\n\
                unless { context.approval.dual };";
    let t = held(ask(&policies(loaded(text)), "crm.refund", refund(1), &facts()));
    assert_eq!((t.needs.people, t.needs.justification), (3, true));
    assert_eq!(t.needs.requirements[0].groups, ["finance", "data-stewards", "support-leads"]);
}
