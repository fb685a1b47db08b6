//! The schedule, and the workers that keep to it: one connection each, the next arrival goes to
//! whoever is free.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Answer, Connection, Failure};
use super::{LoadOptions, LoadReport};

/// An arrival that waited so long for a free connection is skipped: after a hang the schedule
/// goes on, instead of catching up in one burst.
const LATE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Shared {
    options: LoadOptions,
    report: Arc<Mutex<LoadReport>>,
    get: Vec<u8>,
    post: Vec<u8>,
    next: AtomicU64,
}

impl Shared {
    pub(super) fn new(options: LoadOptions, report: Arc<Mutex<LoadReport>>) -> Self {
        let LoadOptions { path, host, post_bytes, .. } = &options;
        let rest = format!("{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: switchback-load\r\n");
        let get = format!("GET {rest}\r\n").into_bytes();
        let form = "Content-Type: text/plain";
        let head = format!("POST {rest}{form}\r\nContent-Length: {post_bytes}\r\n\r\n");
        let mut post = head.into_bytes();
        post.extend(std::iter::repeat_n(b'x', *post_bytes));
        Self { options, report, get, post, next: AtomicU64::new(0) }
    }

    /// When an arrival is due after the start; `None` once there are no more.
    fn due(&self, arrival: u64) -> Option<Duration> {
        if arrival >= self.options.requests_max {
            return None;
        }
        let rate = u64::from(self.options.rate_per_second);
        let rest = Duration::from_nanos(arrival % rate * 1_000_000_000 / rate);
        let due = Duration::from_secs(arrival / rate) + rest;
        (due <= self.options.duration_max).then_some(due)
    }

    /// What an arrival sends: POSTs are spread evenly.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "arrivals stay far below 2^52"
    )]
    fn request(&self, arrival: u64) -> &[u8] {
        let posts_before = |arrival: u64| (arrival as f64 * self.options.post_share) as u64;
        if posts_before(arrival + 1) > posts_before(arrival) { &self.post } else { &self.get }
    }

    fn report(&self) -> MutexGuard<'_, LoadReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends until the schedule ends or `stopping` turns true, and every answer is in.
pub(super) async fn run(shared: Shared, stopping: watch::Receiver<bool>) {
    let shared = Arc::new(shared);
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..shared.options.connections {
        workers.spawn(work(shared.clone(), start, stopping.clone()));
    }
    while workers.join_next().await.is_some() {}
}

async fn work(shared: Arc<Shared>, start: Instant, mut stopping: watch::Receiver<bool>) {
    let mut connection = None;
    loop {
        let arrival = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(due) = shared.due(arrival) else { return };
        let due = start + due;
        tokio::select! {
            biased;
            () = told(&mut stopping) => return,
            () = sleep_until(due) => {}
        }
        if due.elapsed() > LATE_MAX {
            shared.report().skipped += 1;
            continue;
        }
        shared.report().sent += 1;
        let result = send(&shared, &mut connection, shared.request(arrival)).await;
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut report = shared.report();
        match result {
            Ok(answer) => report.count_answer(&answer, micros),
            Err(failure) => report.count_failure(failure),
        }
    }
}

/// Returns once nothing more shall be sent.
async fn told(stopping: &mut watch::Receiver<bool>) {
    // An error means that the handle was dropped: stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Sends one request on the kept connection if it is still good, and keeps it if it stays so.
async fn send(
    shared: &Shared,
    kept: &mut Option<Connection>,
    request: &[u8],
) -> Result<Answer, Failure> {
    let limit = shared.options.timeout;
    let mut connection = match kept.take() {
        Some(connection) if connection.is_open() => connection,
        closed => {
            shared.report().connections_closed_by_server += u64::from(closed.is_some());
            let opening = timeout(limit, Connection::open(shared.options.address)).await;
            let opened = opening.map_err(|_| Failure::Connect)?.map_err(|_| Failure::Connect)?;
            shared.report().connections_opened += 1;
            opened
        }
    };
    let exchange = timeout(limit, connection.exchange(request)).await;
    let answer = exchange.map_err(|_| Failure::Timeout)??;
    if !answer.closes {
        *kept = Some(connection);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(change: impl FnOnce(&mut LoadOptions)) -> Shared {
        let mut options = LoadOptions::new(([127, 0, 0, 1], 1).into());
        change(&mut options);
        Shared::new(options, Arc::default())
    }

    #[test]
    fn arrivals_are_evenly_spaced_and_end() {
        let shared = shared(|options| {
            options.rate_per_second = 300;
            options.duration_max = Duration::from_secs(2);
            options.requests_max = 500;
        });
        let due: Vec<_> = (0..).map_while(|arrival| shared.due(arrival)).collect();
        assert_eq!((due.len(), due[0], due[300]), (500, Duration::ZERO, Duration::from_secs(1)));
        for pair in due.windows(2) {
            assert!((3_333_333..=3_333_334).contains(&(pair[1].as_nanos() - pair[0].as_nanos())));
        }
        assert_eq!(shared.due(600), None);
    }

    #[test]
    fn posts_are_as_many_as_asked_for() {
        for (share, posts) in [(0.0, 0), (0.1, 100), (1.0, 1000)] {
            let shared = shared(|options| options.post_share = share);
            let is_post = |arrival: &u64| shared.request(*arrival).starts_with(b"POST");
            assert_eq!((0..1000).filter(is_post).count(), posts);
        }
    }
}
