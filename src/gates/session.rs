//! MCP sessions: an id that an upstream gave to one principal serves no other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, StatusCode};

use crate::call::{Code, Draft, Principal, PrincipalKey, Refusal};

const HEADER: &str = "mcp-session-id";
/// Sessions that are remembered; the oldest goes first.
const REMEMBERED: usize = 50_000;

type Session = (String, String);

/// Who owns which session, by tool and id. Shared by all cores; kept in memory.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<(HashMap<Session, PrincipalKey>, VecDeque<Session>)>);

impl Sessions {
    /// A message that names a session must come from its owner. An id from before a restart belongs to the first
    /// principal that uses it.
    ///
    /// # Errors
    /// 404 like a session that is over: the client begins anew.
    pub fn check(&self, principal: &Principal, draft: &Draft) -> Result<(), Refusal> {
        let Some(id) = draft.incoming.headers.get(HEADER).and_then(|v| v.to_str().ok()) else { return Ok(()) };
        let owner = self.owner(&draft.operation.tool.name, id, principal);
        if owner == principal.key() {
            return Ok(());
        }
        Err(Refusal::new(Code::UnknownTool, "no such session of yours; begin with `initialize`")
            .with_status(StatusCode::NOT_FOUND)
            .with("session", "unknown"))
    }

    /// The upstream has given out a session.
    pub fn made(&self, principal: &Principal, tool: &str, headers: &HeaderMap) {
        if let Some(id) = headers.get(HEADER).and_then(|v| v.to_str().ok()) {
            self.owner(tool, id, principal);
        }
    }

    fn owner(&self, tool: &str, id: &str, principal: &Principal) -> PrincipalKey {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (owners, order) = &mut *known;
        let session = (tool.to_owned(), id.to_owned());
        if let Some(owner) = owners.get(&session) {
            return owner.clone();
        }
        owners.insert(session.clone(), principal.key());
        order.push_back(session);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            owners.remove(&oldest);
        }
        principal.key()
    }
}
