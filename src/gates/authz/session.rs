//! Methods that only carry MCP itself (`initialize`, `tools/list` …): no policy need permit them, and any may forbid them.
//! What the lists say is filtered, and every call is asked in full.

use crate::call::method::Role;
use crate::call::{Call, Code, Facts, Principal, Refusal, Tier};

use super::ask::Asked;
use super::{Permit, Policies, Question, broken};

impl Policies {
    /// A permit for a method that only carries the protocol, for whoever may see anything of the tool. A forbid that
    /// approval would lift does not stop it: calls are held, not handshakes.
    ///
    /// # Errors
    /// `unknown_tool` for a principal that may see nothing of the tool, and for every other kind of call; `forbidden`
    /// when a policy forbids it, or could not be evaluated.
    pub fn admit(&self, p: &Principal, call: &Call, facts: &Facts) -> Result<Permit, Refusal> {
        let operation = call.operation();
        let mut siblings = self.loaded.model().operations.iter().filter(|o| o.tool.name == operation.tool.name);
        if operation.role != Role::Handshake || !siblings.any(|o| o.role != Role::Handshake && self.visible(p, o)) {
            return Err(Refusal::new(Code::UnknownTool, "no such tool or operation, or not one that you may see")
                .for_call(call.id()));
        }
        let asking = self.asking(&Question::of(p, call, facts))?;
        let asked = self.ask(&asking, Tier::High).map_err(|policy| broken(call, Code::Forbidden, &policy))?;
        match asked {
            Asked { allowed: false, policies } if !policies.is_empty() && !self.observes => {
                Err(self.denied(call, Code::Forbidden, &policies))
            }
            Asked { policies, .. } => Ok(self.permit(call, Tier::Low, policies)),
        }
    }
}
