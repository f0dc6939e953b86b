//! A new version of everything, or the old one stays.

use std::collections::BTreeMap;

use crate::call::{Fault, ToolKind};
use crate::config::Config;
use crate::policy::{Finding, Loaded, Source};
use crate::snapshot::Snapshot;
use crate::store::AuditNote;
use crate::wire::{Mount, Surface};
use crate::workbench::check::{Report, Set};

use super::Shared;
use super::files::{self, Watch};

/// What a version shows to agents.
pub(super) fn surface(s: &Snapshot) -> Surface {
    let mount = |t: &crate::config::ToolConfig| {
        let envelope = if t.tool.kind == ToolKind::Mcp { 64 << 10 } else { 0 };
        Mount {
            segments: t.tool.mount.clone(),
            tool: t.tool.name.clone(),
            kind: t.tool.kind,
            body_limit: t.operations().map(|o| o.limits.body).max().unwrap_or(0) + envelope,
        }
    };
    Surface { allowed_hosts: s.config.listen.allowed_hosts.clone(), mounts: s.config.tools.iter().map(mount).collect() }
}

fn note(kind: &str, s: &Snapshot, error: Option<String>) -> AuditNote {
    let (config, policies) = s.digests();
    let mut more = BTreeMap::from([
        ("config_digest".to_owned(), config.to_string().into()),
        ("policy_digest".to_owned(), policies.to_string().into()),
    ]);
    if let Some(error) = error {
        more.insert("error".to_owned(), error.into());
    }
    AuditNote::plain(kind, more)
}

/// With the person who asked for it, where one did.
fn asked(mut note: AuditNote, by: Option<String>) -> AuditNote {
    if let Some(person) = by {
        note.more.insert("by".to_owned(), person.into());
    }
    note
}

/// Records which version rules from the start.
pub(super) async fn started(shared: &Shared) -> Result<(), Fault> {
    let s = shared.snapshots.current();
    shared.store.append(note("config.loaded", &s, None), true).await?;
    end_grants(shared).await;
    Ok(())
}

/// Grants that lean on what is not so any more. One that cannot be ended now lets nothing pass all the same: each use asks
/// again.
async fn end_grants(shared: &Shared) {
    let s = shared.snapshots.current();
    if let Err(fault) = shared.store.end_grants(None, |g| s.outlaws(&g.operation, &g.leans)).await {
        tracing::error!(fault = %fault.chain(), "grants that lean on an older version could not be ended");
    }
}

impl Shared {
    /// Whether the files hold something that was not tried yet.
    pub(super) async fn files_changed(&self) -> bool {
        let (path, s, watch) = (self.path.clone(), self.snapshots.current(), std::sync::Arc::clone(&self.watch));
        let look = move || {
            let now = files::fingerprint(&path, &s.config);
            watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).due(now)
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }
}

/// Loads, builds, swaps; or says everything that is wrong.
pub(super) async fn reload(shared: &Shared, by: Option<String>) -> anyhow::Result<()> {
    let path = shared.path.clone();
    let (lasting, old) = (shared.lasting.clone(), shared.snapshots.current());
    let before = std::sync::Arc::clone(&old);
    let watch = std::sync::Arc::clone(&shared.watch);
    let built = tokio::task::spawn_blocking(move || watched(&path, &lasting, &before, &watch)).await;
    let built = built.map_err(anyhow::Error::from).and_then(|b| b);
    let result = match built {
        Ok(next) => match shared.store.append(asked(note("config.reloaded", &next, None), by), true).await {
            Ok(()) => {
                shared.pins.accepted(&next.config);
                shared.breakers.configure(next.config.tools.iter().map(|t| (t.tool.name.clone(), t.breaker)));
                shared.surface.store(std::sync::Arc::new(surface(&next)));
                shared.snapshots.replace(next);
                end_grants(shared).await;
                shared.warm();
                Ok(())
            }
            Err(fault) => Err(anyhow::anyhow!("the new version could not be recorded: {}", fault.chain())),
        },
        Err(e) => {
            let noted = shared.store.append(asked(note("config.rejected", &old, Some(e.to_string())), by), true).await;
            if let Err(fault) = noted {
                tracing::error!(fault = %fault.chain(), "a rejected reload could not be recorded");
            }
            Err(e)
        }
    };
    let label = if result.is_ok() { "ok" } else { "rejected" };
    shared.metrics.config_reloads.with_label_values(&[label]).inc();
    match &result {
        Ok(()) => {
            let (config, policies) = shared.snapshots.current().digests();
            tracing::info!(config.digest = %config, policy.digest = %policies, "a new version is in force");
        }
        Err(e) => tracing::error!(error = %e, "the new version was rejected; the old one stays in force"),
    }
    result
}

/// Builds, and remembers the content that was tried: the look at the files need not try it again. What changes while it
/// is read is tried again.
fn watched(
    path: &std::path::Path,
    lasting: &crate::snapshot::Lasting,
    old: &Snapshot,
    watch: &std::sync::Mutex<Watch>,
) -> anyhow::Result<Snapshot> {
    let before = files::fingerprint(path, &old.config);
    let built = build(path, lasting, old);
    let still = files::fingerprint(path, &old.config) == before;
    let tried = match &built {
        Ok(next) if still => files::fingerprint(path, &next.config),
        _ => before,
    };
    watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).tried(tried);
    built
}

/// What the files as they are now would come to, or these policies with the rest of them. Puts nothing in force.
pub(super) fn rehearse(shared: &Shared, given: Option<&[Source]>) -> Report {
    let mut report = Report::of(&shared.path, given.map_or(Set::Configured, Set::Given));
    if report.errors() == 0
        && let (Some(config), Some(loaded)) = (report.config.take(), report.policies.clone())
        && let Err(why) = with(config, loaded, &shared.lasting, &shared.snapshots.current())
    {
        report.findings.push(Finding::error("config-rejected", why.to_string()));
    }
    report
}

fn with(
    config: Config,
    loaded: Loaded,
    lasting: &crate::snapshot::Lasting,
    old: &Snapshot,
) -> anyhow::Result<Snapshot> {
    needs_restart(&old.config, &config)?;
    Ok(Snapshot::with(config, loaded, lasting, Some(old))?)
}

fn build(path: &std::path::Path, lasting: &crate::snapshot::Lasting, old: &Snapshot) -> anyhow::Result<Snapshot> {
    let config = super::load(path)?;
    needs_restart(&old.config, &config)?;
    Ok(Snapshot::build(config, lasting, Some(old))?)
}

fn needs_restart(old: &Config, new: &Config) -> anyhow::Result<()> {
    let moved = [
        ("listen.agents", old.listen.agents == new.listen.agents),
        ("listen.admin", old.listen.admin == new.listen.admin),
        ("listen.tls` or `identity.agents.mtls", old.listen.tls_digest == new.listen.tls_digest),
        ("listen.drain", old.listen.drain == new.listen.drain),
        ("state.path", old.state.path == new.state.path),
        ("state.encryption_key", old.state.encryption_key == new.state.encryption_key),
    ];
    match moved.iter().find(|(_, same)| !same) {
        Some((key, _)) => Err(anyhow::anyhow!("`{key}` changed: that needs a restart")),
        None => Ok(()),
    }
}
