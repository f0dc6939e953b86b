//! MCP sessions: an id that an upstream gave to one principal serves no other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, StatusCode};

use crate::call::{Code, Draft, Message, Principal, PrincipalKey, Protocol, Refusal};

const HEADER: &str = "mcp-session-id";
/// Sessions that are remembered; the oldest goes first.
const REMEMBERED: usize = 50_000;

type Named = (String, String);

/// Names that upstreams gave out, by tool and name, with the principal that got each; the oldest goes first.
#[derive(Debug, Default)]
struct Owners(Mutex<(HashMap<Named, PrincipalKey>, VecDeque<Named>)>);

impl Owners {
    /// Who owns it; whoever names it first, if nobody does.
    fn owner(&self, tool: &str, name: &str, principal: &PrincipalKey) -> PrincipalKey {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (owners, order) = &mut *known;
        let named = (tool.to_owned(), name.to_owned());
        if let Some(owner) = owners.get(&named) {
            return owner.clone();
        }
        owners.insert(named.clone(), principal.clone());
        order.push_back(named);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            owners.remove(&oldest);
        }
        principal.clone()
    }
}

/// Who was told an event of this id. Servers count events per session, so many may own one.
#[derive(Debug, Default)]
struct Told(Mutex<(Hearers, VecDeque<Named>)>);

type Hearers = HashMap<Named, Vec<PrincipalKey>>;

/// Principals that are remembered for one event id; beyond, it says nothing any more.
const TELLERS: usize = 64;

impl Told {
    fn add(&self, tool: &str, id: &str, principal: &PrincipalKey) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, order) = &mut *known;
        let named = (tool.to_owned(), id.to_owned());
        if let Some(all) = told.get_mut(&named) {
            if all.len() <= TELLERS && !all.contains(principal) {
                all.push(principal.clone());
            }
            return;
        }
        told.insert(named.clone(), vec![principal.clone()]);
        order.push_back(named);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            told.remove(&oldest);
        }
    }

    /// Others were told it, and this principal was not.
    fn is_foreign(&self, tool: &str, id: &str, principal: &PrincipalKey) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = known.0.get(&(tool.to_owned(), id.to_owned()));
        all.is_some_and(|all| all.len() <= TELLERS && !all.contains(principal))
    }
}

/// Who owns which session, and who was told which events of streams. Shared by all cores; kept in memory.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: Owners,
    events: Told,
}

/// Notes the events of one stream as its principal's: nobody else resumes from them.
#[derive(Debug, Clone)]
pub struct Listener {
    of: Arc<Sessions>,
    tool: String,
    principal: PrincipalKey,
}

impl Listener {
    /// An event with this id was told.
    pub(crate) fn told(&self, id: &str) {
        self.of.events.add(&self.tool, id, &self.principal);
    }
}

impl Sessions {
    /// A message that names a session must come from its owner. An id from before a restart belongs to the first
    /// principal that uses it.
    ///
    /// # Errors
    /// 404 like a session that is over: the client begins anew.
    pub fn check(&self, principal: &Principal, draft: &Draft) -> Result<(), Refusal> {
        let modern = matches!(&draft.incoming.message, Message::Mcp(m) if m.protocol == Protocol::McpModern);
        if modern {
            return Ok(());
        }
        let tool = draft.operation.tool.name.as_str();
        let named = |header: &str| draft.incoming.headers.get(header).and_then(|v| v.to_str().ok());
        let key = principal.key();
        let session = named(HEADER).is_some_and(|id| self.sessions.owner(tool, id, &key) != key);
        if !session && !named("last-event-id").is_some_and(|id| self.events.is_foreign(tool, id, &key)) {
            return Ok(());
        }
        Err(Refusal::new(Code::UnknownTool, "no such session of yours; begin with `initialize`")
            .with_status(StatusCode::NOT_FOUND)
            .with("session", "unknown"))
    }

    /// Notes the events that this principal is told.
    #[must_use]
    pub fn listener(self: &Arc<Self>, principal: &Principal, tool: &str) -> Listener {
        Listener { of: Arc::clone(self), tool: tool.to_owned(), principal: principal.key() }
    }

    /// The upstream has given out a session.
    pub fn made(&self, principal: &Principal, tool: &str, headers: &HeaderMap) {
        if let Some(id) = headers.get(HEADER).and_then(|v| v.to_str().ok()) {
            self.sessions.owner(tool, id, &principal.key());
        }
    }
}
