//! The first policies: a floor under everything that cannot be taken back.

use super::{Guess, Tool};

const READS: &str = r#"
// LOW: reads run by themselves.
@id("reads-run")
@reason("Reads change nothing.")
permit (
  principal in Holdpoint::AgentGroup::"agents",
  action in Holdpoint::Action::"effect:read",
  resource
);
"#;

const WRITES: &str = r#"
// LOW: writes run by themselves, but for what stands below.
@id("writes-run")
@reason("Writes that can be changed back need no person.")
permit (
  principal in Holdpoint::AgentGroup::"agents",
  action in Holdpoint::Action::"effect:write",
  resource
);
"#;

const FLOOR: &str = r#"
// MEDIUM: nothing that cannot be taken back runs before one person has looked at it. `dual` asks for two.
@id("floor")
@reason("What cannot be taken back, or moves money, waits for a person.")
@approvers("owners")
@sla("15m")
@expires("4h")
forbid (
  principal,
  action in [Holdpoint::Action::"effect:irreversible", Holdpoint::Action::"effect:money"],
  resource
)
unless { context.approval.granted };
"#;

/// Without such an operation Cedar refuses a policy about them; one that comes later must not run by itself.
const NO_FLOOR: &str = r#"
// LOW: writes run by themselves. No operation is irreversible or moves money yet; one that will be is refused until a
// policy such as the floor of `holdpoint init` says who may approve it.
@id("writes-run")
@reason("Writes that can be changed back need no person.")
permit (
  principal in Holdpoint::AgentGroup::"agents",
  action in Holdpoint::Action::"effect:write",
  resource
)
unless { action in [Holdpoint::Action::"effect:irreversible", Holdpoint::Action::"effect:money"] };
"#;

const PEOPLE: &str = r#"// What people may do with holds and with Holdpoint itself. Only policies whose scope names an admin action
// (or the group `Action::"admin"`) are asked here.

@id("owners-review")
@reason("The owners see and decide what waits for them.")
permit (
  principal in Holdpoint::Team::"owners",
  action in [
    Holdpoint::Action::"hold.view",
    Holdpoint::Action::"hold.claim",
    Holdpoint::Action::"hold.approve",
    Holdpoint::Action::"hold.reject",
    Holdpoint::Action::"hold.comment",
    Holdpoint::Action::"hold.escalate",
    Holdpoint::Action::"hold.edit"
  ],
  resource
)
when { resource.approvers.contains(Holdpoint::Team::"owners") };

@id("reviewers-read-evidence")
@reason("Who decides sees the evidence.")
permit (principal, action == Holdpoint::Action::"artifact.view", resource is Holdpoint::Hold)
when { principal in resource.approvers };

@id("four-eyes")
@reason("You cannot approve or edit a hold that you requested.")
forbid (
  principal,
  action in [Holdpoint::Action::"hold.approve", Holdpoint::Action::"hold.edit"],
  resource
)
when { resource has requestedBy && resource.requestedBy == principal };

@id("high-tier-needs-mfa-and-page")
@reason("High-tier approvals need a second factor, and never a chat button.")
forbid (principal, action == Holdpoint::Action::"hold.approve", resource)
when { resource.tier == "high" && (!context.mfa || context.channel == "slack") };

// The people who run Holdpoint. Better a team of its own, once there is one.
@id("owners-operate")
@reason("The owners see every call, and say what became of those whose outcome is unknown.")
permit (
  principal in Holdpoint::Team::"owners",
  action in [
    Holdpoint::Action::"call.view",
    Holdpoint::Action::"call.reconcile",
    Holdpoint::Action::"audit.read",
    Holdpoint::Action::"notify.replay",
    Holdpoint::Action::"breaker.reset",
    Holdpoint::Action::"budget.topup",
    Holdpoint::Action::"drain",
    Holdpoint::Action::"kill",
    Holdpoint::Action::"resume",
    Holdpoint::Action::"policy.view"
  ],
  resource
);
"#;

const HEAD: &str = "\
// Drafted by `holdpoint init`. A forbid wins over every permit; what nothing permits is refused.
//   unless { context.approval.granted }   one person       (medium)
//   unless { context.approval.dual }      two people       (high)
//   no unless                             nobody
";

/// What is under the floor, of what the draft has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) reads: bool,
    pub(super) writes: bool,
    pub(super) risky: bool,
}

impl Kinds {
    pub(super) fn of(tools: &[Tool]) -> Self {
        let all = || tools.iter().flat_map(|t| &t.operations);
        // The methods of MCP are operations, too: resources are read, a log level is set.
        let mcp = tools.iter().any(|t| t.lock.is_some());
        Self {
            reads: mcp || all().any(|o| o.effect == Guess::Read),
            writes: mcp || all().any(|o| o.effect != Guess::Read),
            risky: all().any(|o| o.effect.needs_person()),
        }
    }
}

/// `00-floor.cedar`. Cedar takes no policy that can never apply, so only what there is something for.
pub(super) fn floor(tools: &[Tool]) -> String {
    let kinds = Kinds::of(tools);
    let parts = [
        (kinds.reads, READS),
        (kinds.writes && kinds.risky, WRITES),
        (kinds.writes && !kinds.risky, NO_FLOOR),
        (kinds.risky, FLOOR),
    ];
    let text: String = parts.into_iter().filter(|(there, _)| *there).map(|(_, text)| text).collect();
    format!("{HEAD}{text}")
}

/// `people.cedar`.
pub(super) const fn people() -> &'static str {
    PEOPLE
}

#[cfg(test)]
mod tests {
    use super::super::{AGENTS, OWNERS};
    use super::*;

    #[test]
    fn policies_name_who_stands_in_the_configuration() {
        for (text, name) in [(READS, AGENTS), (WRITES, AGENTS), (NO_FLOOR, AGENTS), (FLOOR, OWNERS), (PEOPLE, OWNERS)] {
            assert!(text.contains(&format!("\"{name}\"")), "{text}");
        }
    }
}
