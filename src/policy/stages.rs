//! What the stage of a workflow demands of its writes, as policies: so the ladder, tests, explanations and replays see it
//! like everything else. A stage that no workflow is in adds nothing.

use std::collections::BTreeSet;

use super::finding::Source;

const ASSIST: &str = r#"@id("stage-assist")
@reason("This workflow only makes proposals: a person judges each write, and nothing is sent.")
@approvers("workflow-owner")
forbid (principal, action in Holdpoint::Action::"effect:write", resource)
when { context.call.stage == "assist" }
unless { context.approval.granted };
"#;

const VERIFY: &str = r#"@id("stage-verify")
@reason("This workflow is being verified: a person looks at each write before it is sent.")
@approvers("workflow-owner")
forbid (principal, action in Holdpoint::Action::"effect:write", resource)
when { context.call.stage == "verify" }
unless { context.approval.granted };
"#;

/// The policies of the stages in force.
pub(super) fn sources(in_force: &BTreeSet<String>) -> Vec<Source> {
    let all = [("assist", ASSIST), ("verify", VERIFY)];
    let wanted = all.into_iter().filter(|(stage, _)| in_force.contains(*stage));
    wanted.map(|(stage, text)| Source::new(format!("built in: stage {stage}"), text)).collect()
}
