//! Entities, built by hand: they hold only what was proven or configured.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};

use crate::call::{Fault, Operation, Principal, Tool};
use crate::policy::schema::{NAMESPACE, action_ancestors};

/// The entity types of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Action,
    Agent,
    AgentGroup,
    Hold,
    Org,
    System,
    Team,
    Tool,
    User,
}

/// Parsed once: parsing a name costs more than all the rest of an entity.
static NAMES: LazyLock<Vec<(Kind, EntityTypeName)>> = LazyLock::new(|| {
    use Kind::{Action, Agent, AgentGroup, Hold, Org, System, Team, Tool, User};
    let kinds = [Action, Agent, AgentGroup, Hold, Org, System, Team, Tool, User].into_iter();
    kinds.filter_map(|k| Some((k, EntityTypeName::from_str(&format!("{NAMESPACE}::{k:?}")).ok()?))).collect()
});

/// `Holdpoint::<kind>::"<id>"`.
pub(super) fn uid(kind: Kind, id: &str) -> Result<EntityUid, Fault> {
    let name = NAMES.iter().find(|(k, _)| *k == kind).map(|(_, name)| name.clone());
    let name = name.ok_or_else(|| Fault::new("a type name of ours is none"))?;
    Ok(EntityUid::from_type_name_and_id(name, EntityId::new(id)))
}

pub(super) fn action(name: &str) -> Result<EntityUid, Fault> {
    uid(Kind::Action, name)
}

pub(super) fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

pub(super) fn texts<'a>(values: impl IntoIterator<Item = &'a String>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.into_iter().map(|v| text(v)))
}

/// An entity with attributes.
pub(super) fn entity(
    uid: EntityUid,
    attributes: Vec<(String, RestrictedExpression)>,
    parents: HashSet<EntityUid>,
    tags: Vec<(String, RestrictedExpression)>,
) -> Result<Entity, Fault> {
    Entity::new_with_tags(uid, attributes, parents, tags).map_err(|e| Fault::caused("an entity could not be built", e))
}

/// The action, directly in each of its groups, so that the groups themselves need not be asked along.
pub(super) fn action_entity(operation: &Operation) -> Result<Entity, Fault> {
    let above = action_ancestors(operation);
    let parents = above.iter().filter(|a| **a != operation.name).map(|a| action(a)).collect::<Result<_, _>>()?;
    Ok(Entity::new_no_attrs(action(&operation.name)?, parents))
}

pub(super) fn tool_entity(tool: &Tool) -> Result<Entity, Fault> {
    let owner = RestrictedExpression::new_entity_uid(uid(Kind::Team, &tool.owner)?);
    let attributes = vec![
        ("kind".to_owned(), text(tool.kind.as_str())),
        ("env".to_owned(), text(&tool.env)),
        ("owner".to_owned(), owner),
        ("dataClasses".to_owned(), texts(&tool.data_classes)),
    ];
    entity(uid(Kind::Tool, &tool.name)?, attributes, HashSet::new(), Vec::new())
}

pub(super) fn agent_entity(uid_: EntityUid, p: &Principal) -> Result<Entity, Fault> {
    let mut parents = HashSet::from([uid(Kind::Org, &p.org)?]);
    for group in &p.groups {
        parents.insert(uid(Kind::AgentGroup, group)?);
    }
    let mut attributes = Vec::new();
    if let Some(owner) = &p.owner {
        attributes.push(("owner".to_owned(), RestrictedExpression::new_entity_uid(uid(Kind::Team, owner)?)));
    }
    let tags = p.claims.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    entity(uid_, attributes, parents, tags)
}

/// A person, in the teams that were proven.
pub(super) fn user_entity(name: &str, email: Option<&str>, teams: &[String]) -> Result<Entity, Fault> {
    let attributes = email.map(|e| ("email".to_owned(), text(e))).into_iter().collect();
    let parents = teams.iter().map(|t| uid(Kind::Team, t)).collect::<Result<_, _>>()?;
    entity(uid(Kind::User, name)?, attributes, parents, Vec::new())
}
