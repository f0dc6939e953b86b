//! Builds everything from the configuration and wires it: the only place where concrete parts meet.

mod cores;
mod disk;
mod files;
mod inquiries;
mod jobs;
mod reload;
mod ticker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::admin::{self, Admin};
use crate::call::{CallId, Fault, Timestamp};
use crate::clock::Clock;
use crate::config::{self, Config, StateConfig};
use crate::gates::breaker::Breakers;
use crate::gates::hold::{Holds, Polls};
use crate::gates::idempotency::Calls;
use crate::gates::pins::Pins;
use crate::gates::route::Runs;
use crate::gates::session::Sessions;
use crate::gates::upstream::{Servers, fetch};
use crate::notify::Notifier;
use crate::signals::Throttle;
use crate::snapshot::{Lasting, Snapshot, Snapshots};
use crate::store::{Options, Recovery, Store};
use crate::tasks::{Draining, Tracker};
use crate::telemetry::Metrics;
use crate::wire::{Cores, Surface, tls};

pub use disk::{file_system, room, same_disk};

/// Request bodies that may be in memory at once, KiB.
const BODIES: usize = 256 << 10;

/// What all cores share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) surface: Arc<arc_swap::ArcSwap<Surface>>,
    pub(crate) store: Arc<Store>,
    pub(crate) breakers: Arc<Breakers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) strangers: Arc<Throttle>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) polls: Polls,
    pub(crate) runs: Arc<Runs>,
    pub(crate) draining: Draining,
    pub(crate) tracker: Tracker,
    pub(crate) room: Arc<Semaphore>,
    rolled_back: bool,
    watch: Arc<std::sync::Mutex<files::Watch>>,
    lasting: Lasting,
    path: PathBuf,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Where agents connect.
    pub agents: SocketAddr,
    /// Where reviewers connect.
    pub admin: SocketAddr,
    /// What recovery found.
    pub recovery: Recovery,
    shared: Shared,
    drain: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    reviewers: tokio::task::JoinHandle<()>,
    grace: Duration,
}

/// Recovers the store, builds every gate, and opens the listeners. Runs on the caller's runtime, which carries the
/// admin side; calls run on threads of their own, one for each core.
///
/// # Errors
/// Everything that keeps it from starting, each with what would help.
pub async fn start(path: PathBuf, config: Config, clock: Arc<dyn Clock>, cores: usize) -> anyhow::Result<Running> {
    tls::install_provider();
    let metrics = Arc::new(Metrics::new()?);
    let lasting = lasting(&clock, &metrics);
    let listen = config.listen.clone();
    let grace = listen.drain;
    let state = config.state.clone();
    let watch = files::Watch::new(files::fingerprint(&path, &config));
    let snapshot = Snapshot::build(config, &lasting, None)?;
    if let Err(fault) = snapshot.identity.warm().await {
        tracing::warn!(fault = %fault.chain(), "the key set of tokens cannot be had yet; tokens are refused until it can");
    }
    let options = options(&state);
    let opened = {
        let (clock, path) = (Arc::clone(&clock), state.path.clone());
        tokio::task::spawn_blocking(move || Store::open(&path, clock, options))
    };
    let (store, recovery) = opened.await??;
    let polls = Polls::new(&crate::journal::key_file(&state.path.join("poll.key"))?);
    crate::failpoint::hit("serve.opened");
    let (drain, draining) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let shared = Shared {
        surface: Arc::new(arc_swap::ArcSwap::from_pointee(reload::surface(&snapshot))),
        breakers: Arc::new(Breakers::new(Arc::clone(&clock))),
        snapshots: Arc::new(Snapshots::new(snapshot)),
        store: Arc::new(store),
        metrics,
        clock,
        strangers: Arc::default(),
        sessions: Arc::default(),
        pins: Arc::default(),
        polls,
        runs: Arc::clone(&lasting.runs),
        draining: Draining::new(draining),
        tracker: Tracker::default(),
        room: Arc::new(Semaphore::new(BODIES)),
        rolled_back: recovery.records_lost > 0 || recovery.rollback.is_some(),
        watch: Arc::new(std::sync::Mutex::new(watch)),
        lasting,
        path,
    };
    let s = shared.snapshots.current();
    shared.breakers.configure(s.config.tools.iter().map(|t| (t.tool.name.clone(), t.breaker)));
    reload::started(&shared).await?;
    reopen_runs(&shared)?;

    let agents = TcpListener::bind(listen.agents).await.map_err(|e| busy("agents", listen.agents, &e))?;
    let admin_listener = TcpListener::bind(listen.admin).await.map_err(|e| busy("admin", listen.admin, &e))?;
    let addresses = (agents.local_addr()?, admin_listener.local_addr()?);
    let (agent_tls, admin_tls) = acceptors(&s.config)?;

    let mut hands = Cores::default();
    let (resume, resumed) = mpsc::unbounded_channel::<CallId>();
    let (asked, jobs) = mpsc::unbounded_channel();
    let work = cores::Work { resumed, jobs };
    let threads = cores::start(&shared, cores, &mut hands, agent_tls, work, &stopped)?;
    for id in recovery.approved.iter().chain(&recovery.to_resend) {
        resume.send(*id)?;
    }
    crate::tasks::spawn(crate::wire::accept(agents, hands, stopped.clone()));
    crate::tasks::spawn(ticker::run(shared.clone(), resume.clone(), stopped.clone()));
    let notifier = notifier(&shared, &state.path)?;
    crate::tasks::spawn(Arc::clone(&notifier).run(stopped.clone()));
    let admin = desk(&shared, resume, &asked, notifier, drain.clone());
    let router = admin::router(admin);
    let reviewers = crate::tasks::spawn(admin::serve(admin_listener, admin_tls, router, stopped));
    shared.warm();
    crate::failpoint::hit("serve.listening");
    let (agents, admin) = addresses;
    Ok(Running { agents, admin, recovery, shared, drain, stop, threads, reviewers, grace })
}

/// Who is told of what happens, from what happens first.
fn notifier(shared: &Shared, state: &std::path::Path) -> Result<Arc<Notifier>, Fault> {
    let (store, snapshots) = (Arc::clone(&shared.store), Arc::clone(&shared.snapshots));
    let look = admin::look(Arc::clone(&snapshots), Arc::clone(&store));
    Notifier::open(state, store, snapshots, Arc::clone(&shared.clock), Arc::clone(&shared.metrics), look)
}

/// What the admin side works with.
fn desk(
    shared: &Shared,
    resume: mpsc::UnboundedSender<CallId>,
    asked: &mpsc::UnboundedSender<jobs::Job>,
    notifier: Arc<Notifier>,
    drain: watch::Sender<bool>,
) -> Arc<Admin> {
    let (reloaded, rehearsed) = (shared.clone(), shared.clone());
    Arc::new(Admin {
        edit: jobs::ask(asked, |p, edit| async move { p.edit(edit).await }),
        undo: jobs::ask(asked, |p, undo| async move { p.undo(undo).await }),
        grant: jobs::ask(asked, |p, grant| async move { p.grant(grant).await }),
        reload: Arc::new(move |by| {
            let shared = reloaded.clone();
            Box::pin(async move { reload::reload(&shared, Some(by)).await.map_err(|e| format!("{e:#}")) })
        }),
        rehearse: Arc::new(move |given| reload::rehearse(&rehearsed, given)),
        notifier,
        pins: Arc::clone(&shared.pins),
        breakers: Arc::clone(&shared.breakers),
        snapshots: Arc::clone(&shared.snapshots),
        store: Arc::clone(&shared.store),
        metrics: Arc::clone(&shared.metrics),
        clock: Arc::clone(&shared.clock),
        resume,
        drain: Arc::new(move || drain.send_modify(|on| *on = true)),
        draining: shared.draining.clone(),
    })
}

fn options(state: &StateConfig) -> Options {
    let checkpoint_copy = state.checkpoint_copy.clone();
    let default = Options { key: state.encryption_key, checkpoint_copy, ..Options::default() };
    match crate::failpoint::setting("HOLDPOINT_SEGMENT_BYTES") {
        Some(bytes) => Options { segment_bytes: bytes, preallocate: bytes / 4, ..default },
        None => default,
    }
}

/// A person says that the history in the state directory is the one to go on with; returns what was wrong with it.
///
/// # Errors
/// When the directory cannot be opened, or it cannot be recorded.
pub fn accept_history(
    config: &Config,
    clock: Arc<dyn Clock>,
    reason: &str,
    by: &str,
) -> anyhow::Result<Option<String>> {
    let (store, recovery) = Store::open(&config.state.path, clock, options(&config.state))?;
    store.accept_history(reason, by)?;
    Ok(recovery.rollback)
}

/// Runs that named themselves go on over a restart: derived keys and run budgets stand on their names.
fn reopen_runs(shared: &Shared) -> Result<(), Fault> {
    let idle = i64::try_from(Runs::IDLE.as_millis()).unwrap_or(i64::MAX);
    let since = Timestamp::from_millis(shared.clock.now().as_millis().saturating_sub(idle));
    for (caller, run, at) in shared.store.runs(since)? {
        shared.runs.reopen(caller, &run, at);
    }
    Ok(())
}

fn busy(which: &str, address: SocketAddr, e: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("cannot listen on {address} (listen.{which}): {e}")
}

fn lasting(clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> Lasting {
    let counted = Arc::clone(metrics);
    let time = Arc::clone(clock);
    Lasting {
        clock: Arc::clone(clock),
        runs: Arc::new(Runs::default()),
        servers: Arc::new(Servers::here()),
        fetch: Arc::new(move |uri| Box::pin(fetch(uri, Arc::clone(&time)))),
        on_policy_error: Arc::new(move |policy| counted.policy_errors.with_label_values(&[policy]).inc()),
    }
}

fn acceptors(config: &Config) -> anyhow::Result<(Option<TlsAcceptor>, Option<TlsAcceptor>)> {
    let Some(files) = &config.listen.tls else { return Ok((None, None)) };
    let ca = config.identity.mtls.as_ref().map(|m| m.ca.as_path());
    let agents = tls::server(&files.cert, &files.key, ca, &["h2", "http/1.1"])?;
    let admin = tls::server(&files.cert, &files.key, None, &["http/1.1"])?;
    Ok((Some(TlsAcceptor::from(agents)), Some(TlsAcceptor::from(admin))))
}

impl Shared {
    /// Tools that are commands are started before the first call needs them.
    fn warm(&self) {
        self.snapshots.current().endpoints.values().for_each(|endpoint| endpoint.warm());
    }

    /// The path as one core walks it.
    pub(crate) fn pipeline(&self) -> crate::pipeline::Pipeline {
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        crate::pipeline::Pipeline {
            snapshots: Arc::clone(&self.snapshots),
            holds: Holds::new(Arc::clone(&store), Arc::clone(&clock), self.draining.clone(), self.polls.clone()),
            calls: Calls::new(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&self.metrics), self.tracker.clone()),
            breakers: Arc::clone(&self.breakers),
            sessions: Arc::clone(&self.sessions),
            pins: Arc::clone(&self.pins),
            upstreams: Arc::new(crate::gates::upstream::Upstreams::new(Arc::clone(&clock))),
            metrics: Arc::clone(&self.metrics),
            strangers: Arc::clone(&self.strangers),
            draining: self.draining.clone(),
            tracker: self.tracker.clone(),
            rolled_back: self.rolled_back,
            store,
            clock,
        }
    }
}

impl Running {
    /// Reads configuration, schemas and policies again: all or nothing.
    ///
    /// # Errors
    /// Every mistake; the old version stays in force.
    pub async fn reload(&self) -> anyhow::Result<()> {
        reload::reload(&self.shared, None).await
    }

    /// The metrics, for tests and for the demo.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// The store, for the demo's summary and for tests.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// Ends when a reviewer has asked that it stops: nothing new begins any more, and [`Running::stop`] does the rest.
    pub async fn asked_to_stop(&self) {
        self.shared.draining.on().await;
    }

    /// Stops: nothing new begins, calls under way end in the time that the configuration gives them.
    pub async fn stop(self) {
        self.drain.send_replace(true);
        let ended = tokio::time::timeout(self.grace, self.shared.tracker.idle()).await;
        if ended.is_err() {
            tracing::warn!("calls were still under way when the drain time was over; their outcome will be unknown");
        }
        crate::failpoint::hit("stop.drained");
        self.stop.send_replace(true);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|t| t.join().is_ok())).await;
        self.shared.lasting.servers.stop().await;
        // Whoever asked for this, over the admin side, has the answer.
        let told = self.reviewers.await.is_ok();
        tracing::info!(clean = ended.is_ok() && told && joined.is_ok_and(|ok| ok), "stopped");
    }
}

/// Loads the configuration for `start`.
///
/// # Errors
/// Every mistake at once.
pub fn load(path: &std::path::Path) -> Result<Config, config::Mistakes> {
    config::load(path)
}
