//! Methods that only carry an MCP session (`initialize`, `tools/list` …): let through for whoever may see an operation
//! of the tool. What the lists say is filtered, and every call is asked in full.

use crate::call::{Call, Code, Principal, Refusal, Tier};

use super::{Permit, Policies};

impl Policies {
    /// A permit for a session method.
    ///
    /// # Errors
    /// `unknown_tool` for a principal that may see no operation of the tool, and for every other kind of call.
    pub fn admit(&self, p: &Principal, call: &Call) -> Result<Permit, Refusal> {
        let operation = call.operation();
        let is_session = operation.name == format!("{}:session", operation.tool.name);
        let mut siblings = self.loaded.model().operations.iter().filter(|o| o.tool.name == operation.tool.name);
        if is_session && siblings.any(|o| self.visible(p, o)) {
            return Ok(self.permit(call, Tier::Low, Vec::new()));
        }
        Err(Refusal::new(Code::UnknownTool, "no such tool or operation, or not one that you may see")
            .for_call(call.id()))
    }
}
