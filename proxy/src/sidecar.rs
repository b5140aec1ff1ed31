//! Starts the sidecar, and ends it without losing a call.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_credential::Loop;
use tidegate_wire::Prices;
use tokio::sync::{Semaphore, watch};
use tokio::task::LocalSet;
use tracing::{error, info, warn};

use crate::activity::Activity;
use crate::admin::{self, Admin, Inside, Readiness, serve_admin, serve_health};
use crate::bypass::{By, Switch};
use crate::config::Config;
use crate::credentials;
use crate::export::Exporter;
use crate::export::capture::{Capture, CaptureConfig};
use crate::export::jsonl::JsonLines;
use crate::export::logs::Logs;
use crate::export::otlp::Otlp;
use crate::export::spans::{self, Traces};
use crate::generation::{self, Generation, Means};
use crate::going_on::AllPlaces;
use crate::jobs::JobLimits;
use crate::layer::quota::{Clock, QuotaMetrics};
use crate::recorder::{self, Recorders};
use crate::serve::Worker;
use crate::states::{Ask, Questions};
use crate::upstream::{Resolver, System};
use crate::ways::{Doors, Ways};

/// How long nothing must have come before a sidecar that was told to end believes that all is over.
const QUIET: Duration = Duration::from_secs(5);
/// How long open calls are waited for, where the pod does not say how long it has.
const DRAIN: Duration = Duration::from_secs(600);
/// What the exporters get at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// How long a reload waits for its workers.
const TAKE_UP: Duration = Duration::from_secs(1);
/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(10);
/// How often a worker looks whether its upstreams are warm, where any is to be.
const WARM_UP: Duration = Duration::from_millis(100);

/// Why the sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or is not ours.
    #[error("cannot listen on {address} ({what}){}", taken(source))]
    Listen {
        /// Which of the addresses.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The records file cannot be written.
    #[error("cannot write records to {}", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file of the capture cannot be written.
    #[error("cannot capture to {}; name another file under capture.file", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// OTLP is configured in a way that cannot work.
    #[error(transparent)]
    Otlp(#[from] crate::export::otlp::Error),
    /// The table of prices cannot be used.
    #[error(transparent)]
    Prices(#[from] crate::config::ConfigError),
    /// A variable would make the sidecar call itself.
    #[error(
        "the environment variable {variable} points at this sidecar, which would then call itself: {advice}"
    )]
    Loop {
        /// Its name.
        variable: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
    /// A credential cannot be had.
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    /// There is no certificate to show.
    #[error(transparent)]
    Tls(#[from] crate::tls::Error),
    /// A file that the store needs cannot be used.
    #[error("store: {0}")]
    Store(String),
    /// Threads cannot be started.
    #[error("cannot start")]
    Threads(#[from] std::io::Error),
}

impl From<generation::Error> for StartError {
    fn from(error: generation::Error) -> Self {
        match error {
            generation::Error::Credentials(error) => Self::Credentials(error),
            generation::Error::Prices(error) => Self::Prices(error),
            generation::Error::Store(message) => Self::Store(message),
        }
    }
}

/// A sidecar that serves.
pub struct Sidecar {
    /// Where callers connect.
    pub address: SocketAddr,
    /// Where metrics and probes are served.
    pub admin: SocketAddr,
    /// What applications find as their proxy.
    pub proxy: Option<SocketAddr>,
    workers: Vec<WorkerThread>,
    recorders: Recorders,
    readiness: Readiness,
    generations: watch::Sender<Arc<Generation>>,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct WorkerThread {
    activity: Arc<Activity>,
    thread: JoinHandle<()>,
}

/// What the workers have in common.
struct Shared {
    permits: Arc<Semaphore>,
    generations: watch::Receiver<Arc<Generation>>,
    stop: watch::Receiver<bool>,
}

// === impl Sidecar ===

impl Sidecar {
    /// Binds all addresses and starts all threads; from then on calls are served.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Arc::new(System), Clock::system())
    }

    /// The same, with names resolved so, and with windows of quotas by this clock.
    pub(crate) fn start_with(
        config: Config,
        resolver: Arc<dyn Resolver>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let count = workers(&config);
        let listeners = crate::listener::bind(config.listen, count)
            .map_err(listen_error("listen", config.listen))?;
        let address = listeners[0].local_addr()?;
        let admin_listener = bind_one(config.admin, "admin")?;
        let admin = admin_listener.local_addr()?;
        let health = config.health.map(|address| bind_one(address, "health")).transpose()?;
        let health_address = health.as_ref().map(TcpListener::local_addr).transpose()?;

        let proxy = config.intercept.as_ref().map(|intercept| intercept.listen);
        let proxies = proxy.map(|proxy| {
            crate::listener::bind(proxy, count).map_err(listen_error("intercept.listen", proxy))
        });
        let proxies = proxies.transpose()?;
        let redirect = config.intercept.as_ref().and_then(|intercept| intercept.redirect);
        let redirects = redirect.map(|redirect| {
            let failed = listen_error("intercept.redirect", redirect);
            crate::listener::bind(redirect, count).map_err(failed)
        });
        let redirects = redirects.transpose()?;
        let proxy = proxies.as_ref().map(|all| all[0].local_addr()).transpose()?;

        let own = [Some(address), Some(admin), health_address, proxy];
        refuse_loops(&own.into_iter().flatten().collect::<Vec<_>>())?;

        let recorders = recorders(&config, crate::prices(config.prices.as_deref())?)?;
        let ways = Ways::open(&config, address, recorders.background())?;
        let doors = ways.doors(listeners, proxies, redirects);
        let (background, switch) = (recorders.background().clone(), Switch::new(config.bypass));
        let places = AllPlaces::default();
        let intercept = ways.intercept;
        let registry = recorders.registry().clone();
        let means = Means { background, resolver, places, switch, clock, registry, intercept };
        let generation = Generation::first(config, means)?;
        warn_of(&generation, &recorders);
        watch_shared(&recorders, &generation);
        let config = &generation.config;
        let readiness = Readiness::default();
        let (stop, stopped) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(config.limits.connections.get() as usize));
        let (generations, current) = watch::channel(Arc::new(generation));
        let (asks, questions): (Vec<_>, Vec<_>) = doors.iter().map(|_| Ask::new()).unzip();
        let recent = recorders.recent().cloned();
        let registry = recorders.registry().clone();
        let inside = Inside { generations: current.clone(), workers: asks, recent, registry };
        administer(&recorders, &readiness, inside, admin_listener, health);
        let shared = Arc::new(Shared { permits, generations: current, stop: stopped });
        let workers = doors
            .into_iter()
            .zip(questions)
            .enumerate()
            .map(|(number, (doors, questions))| {
                start_worker(number, doors, questions, &recorders, shared.clone())
            })
            .collect::<Result<_, _>>()?;
        readiness.ready();
        info!("listening on {address}");
        info!("admin on {admin}");
        if let Some(proxy) = proxy {
            info!("proxy (HTTPS_PROXY, HTTP_PROXY) on {proxy}");
        }
        if let Some(redirect) = redirect {
            info!("redirected connections on {redirect}");
        }
        if let Some(health) = health_address {
            info!("health on {health}");
        }
        Ok(Self { address, admin, proxy, workers, recorders, readiness, generations, stop })
    }

    /// No longer ready, but serving still. Each caller is asked to make its next call by another
    /// connection, which behind a service leads to another pod: one that kept its own would hold
    /// this up for as long as it calls.
    pub fn drain(&self) {
        self.readiness.drain();
        self.workers.iter().for_each(|worker| worker.activity.leave());
    }

    /// Calls in flight.
    pub fn calls_in_flight(&self) -> usize {
        self.workers.iter().map(|worker| worker.activity.open()).sum()
    }

    /// Whether a sidecar that drains has nothing left to wait for. After SIGTERM new calls may still
    /// come, for an application ends after its sidecar was told; after SIGINT none is waited for.
    pub fn is_over(&self, wait_for_quiet: bool) -> bool {
        let quiet = || self.workers.iter().all(|worker| worker.activity.quiet_for() >= QUIET);
        self.calls_in_flight() == 0 && (!wait_for_quiet || quiet())
    }

    /// How long open calls are waited for: the pod's grace less a margin, where it is known.
    pub fn drain_limit() -> Duration {
        let grace = std::env::var("TERMINATION_GRACE_PERIOD_SECONDS").ok();
        let seconds = grace.and_then(|text| text.parse::<u64>().ok());
        seconds.map_or(DRAIN, |seconds| Duration::from_secs(seconds.saturating_sub(5)))
    }

    /// Takes up files anew: what SIGHUP asks for.
    pub fn reopen(&self) {
        self.recorders.reopen();
    }

    /// Serves by this configuration whatever begins from now on, or goes on as before where it cannot
    /// be used. Ends once all workers have taken it up.
    pub async fn reload<E: fmt::Display>(&self, config: Result<Config, E>) {
        let taken_up = match config {
            Ok(config) => self.take_up(config).map_err(|error| error.to_string()),
            Err(error) => Err(format!("{error:#}")),
        };
        match taken_up {
            Ok(generation) => {
                if !generation.is_taken_up(self.workers.len(), TAKE_UP).await {
                    warn!("a worker has not taken up the new configuration yet");
                }
                let Config { upstreams, routes, .. } = &generation.config;
                info!(upstreams = upstreams.len(), routes = routes.len(), "configuration reloaded");
                // Last: who sees it counted finds it said.
                self.recorders.registry().reloaded(generation.loaded);
            }
            Err(reason) => {
                error!(%reason, "configuration cannot be used; the one before it still is");
                self.recorders.registry().reload_failed();
            }
        }
    }

    fn take_up(&self, mut config: Config) -> Result<Arc<Generation>, generation::Error> {
        let running = self.generations.borrow().clone();
        let fixed = config.keep_fixed(&running.config);
        let next = Arc::new(running.next(config)?);
        warn_of(&next, &self.recorders);
        if !fixed.is_empty() {
            warn!(keys = fixed.join(", "), "a restart is needed for what these keys say");
        }
        let (models, regions) = next.config.labels();
        self.recorders.registry().know(models, regions);
        watch_shared(&self.recorders, &next);
        // What the file has not changed stays as it was set, by whomever.
        if next.config.bypass != running.config.bypass {
            next.switch().turn(next.config.bypass, By::Configuration);
        }
        self.generations.send_replace(next.clone());
        Ok(next)
    }

    /// The files beside the configuration that it was read with.
    pub fn files(&self) -> Vec<PathBuf> {
        self.generations.borrow().config.files()
    }

    /// Ends. What is open is cut; every record is written.
    pub fn stop(self) {
        let start = Instant::now();
        let open = self.calls_in_flight();
        if open > 0 {
            warn!(calls = open, "cutting calls that are still open");
        }
        let _ = self.stop.send(true);
        for worker in self.workers {
            if worker.thread.join().is_err() {
                warn!("a worker had panicked");
            }
        }
        self.recorders.shutdown(FLUSH);
        info!(seconds = start.elapsed().as_secs_f64(), "ended");
    }
}

/// As many threads as the user says, else as the container has cores.
fn workers(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    config.workers.map_or_else(cores, |workers| usize::from(workers.get()))
}

fn recorders(config: &Config, prices: Arc<Prices>) -> Result<Recorders, StartError> {
    let records = config.records.as_deref().map(records).transpose()?;
    let capture = config.capture.file.as_deref().map(|file| capture(file, &config.capture));
    let exporters = records.into_iter().chain(capture.transpose()?).collect();
    let (models, regions) = config.labels();
    let variable = |name: &str| std::env::var(name).ok();
    let conventions = config.semantic_conventions.settle(variable);
    let traces = Traces::settle(&config.otlp, conventions, variable)?;
    let options = recorder::Options {
        models,
        regions,
        jobs: JobLimits {
            jobs: config.limits.jobs.get() as usize,
            idle: config.timeouts.job_idle.0,
        },
        exporters,
        keeps_recent: config.recent,
        capture: config.capture.file.is_some().then(|| config.capture.clone()),
        history: config.history.clone(),
        otlp: Otlp::settle(&config.otlp, variable)?,
        logs: Logs::settle(&config.otlp, conventions, variable)?,
        scrape: config.scrape.clone(),
        exponential_histograms: config.exponential_histograms,
        captures_content: traces.is_some()
            && spans::captures_content(config.capture_content, variable),
        traces,
        conventions,
        prices,
    };
    Ok(Recorders::start(options)?)
}

/// Tells what the configuration says in vain.
fn warn_of(generation: &Generation, recorders: &Recorders) {
    for warning in generation.config.warnings() {
        warn!("{warning}");
    }
    if let Some(place) = admin::token_place(generation.config.admin_token.as_ref()) {
        recorders.background().spawn(async move {
            if let Err(error) = place.read().await {
                warn!(%error, "the admin token cannot be used");
            }
        });
    }
}

/// Has the metrics say how the credentials and policies of this generation are, and of no others.
fn watch_shared(recorders: &Recorders, generation: &Generation) {
    let registry = recorders.registry();
    registry.watch_afresh();
    let callers = generation.config.callers.known.keys();
    registry.know_callers(callers.map(|name| name.as_str().into()));
    registry.watch(generation.switch().clone());
    generation.policies.watch(registry);
    if let Some(history) = recorders.history() {
        registry.watch(history.clone());
    }
    if let Some(intercept) = generation.intercept() {
        registry.watch(intercept.clone());
    }
    registry.watch(recorders.scrapes().clone());
    registry.watch(generation.shadows.clone());
    if let Some(store) = &generation.store {
        registry.watch(store.clone());
    }
    if let Some(caches) = &generation.caches {
        registry.watch(caches.clone());
    }
    if let Some(quotas) = generation.quotas.clone() {
        registry.watch(QuotaMetrics { quotas, models: registry.models().clone() });
    }
    for (upstream, credential, refusals) in generation.credentials.all() {
        let credential = credential.clone();
        registry.watch_credential(upstream.clone(), move || credential.freshness());
        registry.watch(credentials::Shown(upstream.clone(), refusals.clone()));
    }
}

/// An application is pointed at its sidecar by variables that a pod's containers may share.
fn refuse_loops(own: &[SocketAddr]) -> Result<(), StartError> {
    let found = tidegate_credential::loops(own, |name| std::env::var(name).ok());
    match found.first() {
        Some(&Loop { variable, advice }) => Err(StartError::Loop { variable, advice }),
        None => Ok(()),
    }
}

fn records(path: &Path) -> Result<Box<dyn Exporter>, StartError> {
    match JsonLines::open(path) {
        Ok(lines) => Ok(Box::new(lines)),
        Err(source) => Err(StartError::Records { path: path.to_owned(), source }),
    }
}

fn capture(path: &Path, config: &CaptureConfig) -> Result<Box<dyn Exporter>, StartError> {
    match Capture::open(path, config) {
        Ok(capture) => Ok(Box::new(capture)),
        Err(source) => Err(StartError::Capture { path: path.to_owned(), source }),
    }
}

fn administer(
    recorders: &Recorders,
    readiness: &Readiness,
    inside: Inside,
    admin: TcpListener,
    health: Option<TcpListener>,
) {
    let state = Admin::new(recorders.registry().clone(), readiness.clone(), Vec::new());
    let state = state.with_inside(inside).with_history(recorders.history().cloned());
    recorders.background().spawn(serve_admin(admin, state.clone()));
    if let Some(health) = health {
        recorders.background().spawn(serve_health(health, state));
    }
}

fn start_worker(
    number: usize,
    doors: Doors,
    questions: Questions,
    recorders: &Recorders,
    shared: Arc<Shared>,
) -> std::io::Result<WorkerThread> {
    let activity = Arc::new(Activity::default());
    let (recorder, mine) = (recorders.worker(), activity.clone());
    let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs nothing but descriptors");
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let mut generations = shared.generations.clone();
            let generation = generations.borrow_and_update().clone();
            let worker = Rc::new(Worker::new(&generation, recorder, mine));
            tokio::task::spawn_local(follow(worker.clone(), generations));
            let asked = worker.clone();
            tokio::task::spawn_local(questions.answer(move || asked.now().routes.state()));
            run_worker(doors, worker.clone(), &shared).await;
            worker.activity.cut();
        });
        // Open calls end here: their records leave before the exporters do.
        drop(local);
    })?;
    Ok(WorkerThread { activity, thread })
}

async fn run_worker(doors: Doors, worker: Rc<Worker>, shared: &Shared) {
    for (socket, door) in doors {
        let socket =
            tokio::net::TcpListener::from_std(socket).expect("a bound socket can be watched");
        let permits = shared.permits.clone();
        tokio::task::spawn_local(crate::listener::accept(socket, worker.clone(), permits, door));
    }
    tokio::task::spawn_local(sweep(worker.clone()));
    tokio::task::spawn_local(warm_up(worker));
    let mut stop = shared.stop.clone();
    // Whoever could tell it to is gone: that is the end too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Takes up each configuration that comes.
async fn follow(worker: Rc<Worker>, mut generations: watch::Receiver<Arc<Generation>>) {
    while generations.changed().await.is_ok() {
        let generation = generations.borrow_and_update().clone();
        worker.take_up(&generation);
        generation.taken_up();
    }
}

async fn warm_up(worker: Rc<Worker>) {
    loop {
        let is_any = worker.warm_up();
        // A configuration that is read anew may ask for it.
        tokio::time::sleep(if is_any { WARM_UP } else { SWEEP }).await;
    }
}

async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        worker.now().routes.sweep();
    }
}

fn bind_one(address: SocketAddr, what: &'static str) -> Result<TcpListener, StartError> {
    let mut sockets = crate::listener::bind(address, 1).map_err(listen_error(what, address))?;
    Ok(sockets.remove(0))
}

fn listen_error(
    what: &'static str,
    address: SocketAddr,
) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::Listen { what, address, source }
}

fn taken(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => "; another process is there, choose another port",
        _ => "",
    }
}
