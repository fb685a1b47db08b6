//! The driver's mailbox and hands: one task that feeds it messages and begins what it orders. The
//! work itself runs beside that task and reports by message.

use std::collections::HashMap;
use std::time::Duration;

use switchback_domain::probe::ProbeResult;
use switchback_domain::{Generation, InstanceId, Timestamp, with_causes};
use switchback_ports::crash_point;
use switchback_ports::metrics::Question;
use switchback_ports::runtime::Instance;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::clock::Instant;
use crate::driver::{Ask, Driver, Links, Message};
use crate::order::Order;
use crate::{Error, certificates, clock, tasks};

/// Messages that may wait; tasks that report wait for room.
const MAILBOX: usize = 1024;
/// Messages taken in before their consequences are settled: bursts settle once.
const BURST: usize = 256;
/// The same as a time: what is asked for is written to the disk, and nothing waits for many of those.
const BURST_TIME: Duration = Duration::from_millis(20);
/// Pause before a stop that failed is reported, and so tried again.
const STOP_AGAIN: Duration = Duration::from_secs(1);

/// Sends messages to the driver.
#[derive(Clone)]
pub(crate) struct Handle {
    sender: mpsc::Sender<Message>,
    links: Links,
}

impl Handle {
    /// Has the driver do something and waits for what comes of it; `None` when it has ended.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Driver) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let ask: Ask = Box::new(move |driver| {
            // The asker may have gone away; that is its business.
            let _ = sender.send(question(driver));
        });
        self.sender.send(Message::Ask(ask)).await.ok()?;
        receiver.await.ok()
    }

    /// The neighbours, for questions that the driver has no part in.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// Reports something; a driver that has ended does not mind.
    pub(crate) async fn send(&self, message: Message) {
        let _ = self.sender.send(message).await;
    }
}

/// The driver with its mailbox and the tasks beside it.
pub(crate) struct Hands {
    driver: Driver,
    links: Links,
    handle: Handle,
    receiver: mpsc::Receiver<Message>,
    /// Tasks beside the driver; they end with it.
    tasks: JoinSet<()>,
    /// Those among them that may bring a process to life: `down` waits for them before it stops
    /// what there is.
    starts: JoinSet<()>,
    /// Those among them that probe.
    probes: HashMap<InstanceId, AbortHandle>,
    /// Whether the data plane is to be kept running.
    keep_data_plane: watch::Sender<bool>,
}

impl Hands {
    pub(crate) fn new(driver: Driver, links: Links) -> (Self, Handle) {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        let handle = Handle { sender, links: links.clone() };
        let hands = Self {
            driver,
            links,
            handle: handle.clone(),
            receiver,
            tasks: JoinSet::new(),
            starts: JoinSet::new(),
            probes: HashMap::new(),
            keep_data_plane: watch::Sender::new(true),
        };
        (hands, handle)
    }

    /// Works until told to stop.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let listen = |kind| {
            signal(kind).map_err(|source| Error::File {
                operation: "watch signals of",
                path: "this process".into(),
                source,
            })
        };
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        self.tasks.spawn(tasks::watch_runtime(self.links.clone(), self.handle.clone()));
        self.starts.spawn(tasks::watch_data_plane(
            self.links.clone(),
            self.handle.clone(),
            self.keep_data_plane.subscribe(),
        ));
        let keeping = certificates::keep_certificates(self.links.clone(), self.handle.clone());
        self.tasks.spawn(keeping);
        while !self.driver.closed && !self.driver.fenced {
            let wake = tokio::time::sleep(self.driver.time_to_wake());
            tokio::select! {
                Some(message) = self.receiver.recv() => self.driver.take_in(message),
                () = wake => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
            let began = Instant::now();
            for _ in 0..BURST {
                let Ok(message) = self.receiver.try_recv() else { break };
                self.driver.take_in(message);
                if began.elapsed() >= BURST_TIME {
                    break;
                }
            }
            while self.tasks.try_join_next().is_some() {}
            while self.starts.try_join_next().is_some() {}
            if !self.driver.closing {
                self.driver.settle();
            }
            for order in std::mem::take(&mut self.driver.orders) {
                self.begin(order);
            }
        }
        if self.driver.fenced { Err(Error::Fenced) } else { Ok(()) }
    }

    fn begin(&mut self, order: Order) {
        let (links, handle) = (self.links.clone(), self.handle.clone());
        match order {
            Order::Publish { table, shifts } => {
                self.tasks.spawn(async move {
                    crash_point("before publish");
                    let result = links.data_plane.publish(&table).await;
                    crash_point("after publish");
                    handle.send(Message::Published(table, shifts, result)).await;
                });
            }
            Order::Start { spec, generation } => {
                self.starts.spawn(async move {
                    crash_point("before start");
                    let result = links.runtime.ensure_running(&spec, generation).await;
                    crash_point("after start");
                    let result = result.map_err(|error| with_causes(&error));
                    handle.send(Message::Started(spec.id, result)).await;
                });
            }
            Order::Stop { id, generation } => self.stop(id, generation),
            Order::Restart { id, reason } => {
                self.tasks.spawn(async move {
                    // Should it fail, liveness goes on failing and asks again.
                    let _ = links.runtime.restart(&id, &reason).await;
                });
            }
            Order::Probe { instance, started_up } => self.probe(*instance, started_up),
            Order::EndProbing(id) => self.end_probing(&id),
            Order::RunHook { key, rollout, position, on, argv, timeout } => {
                self.tasks.spawn(async move {
                    crash_point("before hook");
                    let result = match on {
                        Some(id) => tasks::execute(&*links.runtime, &id, &argv, timeout).await,
                        None => nobody_is_ready(),
                    };
                    crash_point("after hook");
                    handle.send(Message::HookDone { key, rollout, position, result }).await;
                });
            }
            Order::Measure { key, id } => {
                self.tasks.spawn(tasks::measure(links.runtime, handle, key, id));
            }
            Order::ReadMetric { key, name, on, argv, timeout } => {
                self.tasks.spawn(async move {
                    let result = tasks::execute(&*links.runtime, &on, &argv, timeout).await;
                    let number = result.passed.then(|| tasks::first_number(&result.detail));
                    handle.send(Message::Measured(key, name, number.flatten())).await;
                });
            }
            Order::AskMetric { key, id, source, queries, timeout } => {
                self.tasks.spawn(async move {
                    let asked_at = Timestamp::from_millis(clock::wall_ms());
                    let questions = queries.into_iter().map(|query| Question {
                        source: source.clone(),
                        query,
                        at: asked_at,
                        timeout,
                    });
                    let answers = tasks::ask(&links.metrics, questions).await;
                    handle.send(Message::Answered(key, id, asked_at, answers)).await;
                });
            }
            Order::TakeDown { known, generation } => self.take_down(known, generation),
        }
    }

    fn stop(&mut self, id: InstanceId, generation: Generation) {
        let (links, handle) = (self.links.clone(), self.handle.clone());
        self.tasks.spawn(async move {
            crash_point("before stop");
            let gone = links.runtime.ensure_stopped(&id, generation).await.is_ok();
            crash_point("after stop");
            if !gone {
                tokio::time::sleep(STOP_AGAIN).await;
            }
            handle.send(Message::Stopped(id, gone)).await;
        });
    }

    fn probe(&mut self, instance: Instance, started_up: bool) {
        self.end_probing(&instance.spec.id);
        let id = instance.spec.id.clone();
        let (prober, handle) = (self.links.prober.clone(), self.handle.clone());
        let task = self.tasks.spawn(tasks::probe(prober, handle, instance, started_up));
        self.probes.insert(id, task);
    }

    fn end_probing(&mut self, id: &InstanceId) {
        if let Some(task) = self.probes.remove(id) {
            task.abort();
        }
    }

    fn take_down(&mut self, known: Vec<Instance>, generation: Generation) {
        self.keep_data_plane.send_replace(false);
        let mut starts = std::mem::take(&mut self.starts);
        let (links, handle) = (self.links.clone(), self.handle.clone());
        self.tasks.spawn(async move {
            // A start that ends after the stops would leave an orphan.
            while starts.join_next().await.is_some() {}
            // Traffic first: what is on its way still has somebody to answer it.
            let _ = links.supervision.stop().await;
            let present = links.runtime.list().await.unwrap_or(known);
            let ids = present.into_iter().map(|instance| instance.spec.id);
            let mut stops = JoinSet::new();
            for id in ids {
                let runtime = links.runtime.clone();
                stops.spawn(async move {
                    let _ = runtime.ensure_stopped(&id, generation).await;
                });
            }
            stops.join_all().await;
            handle.send(Message::Down).await;
        });
    }
}

fn nobody_is_ready() -> ProbeResult {
    let detail = "no instance of the candidate is ready".to_owned();
    ProbeResult { passed: false, detail }
}
