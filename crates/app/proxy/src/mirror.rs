//! Copies of requests for the candidate, whose answers nobody sees: a limited number at once, on
//! connections of their own, counted by themselves. The request they are copies of never waits.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use switchback_domain::ServiceKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::balance::draw;
use crate::clock;
use crate::compiled::{Arm, Visit};
use crate::limits::{CONNECT_MAX, MIRROR_MAX, MIRRORS_MAX};
use crate::pool::connect;
use crate::worker::Worker;

/// What tells an instance that it answers a copy, and that nobody will ask again on this connection.
const MARK: &[u8] = b"\r\nx-switchback-mirror: 1\r\nconnection: close";

/// Copies of one worker on their way.
#[derive(Debug, Default)]
pub(crate) struct Mirrors(Rc<Cell<usize>>);

/// One copy's place among them; free again when dropped.
struct Place(Rc<Cell<usize>>);

impl Mirrors {
    fn take(&self) -> Option<Place> {
        let taken = self.0.get();
        (taken < MIRRORS_MAX).then(|| {
            self.0.set(taken + 1);
            Place(Rc::clone(&self.0))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Sends a copy, a whole HTTP/1.1 request without the mark; drops it when too many are on their
/// way, or when there is none because its body is not all here.
pub(crate) fn send(
    worker: &Rc<Worker>,
    service: &ServiceKey,
    arm: &Arc<Arm>,
    copy: Option<Vec<u8>>,
) {
    let ready = copy.and_then(marked).filter(|_| arm.upstream.is_default()).and_then(|copy| {
        let place = worker.mirrors.take()?;
        let at = draw(arm, &[], worker.index, clock::now)?;
        Some((copy, place, Visit::begin(Rc::new(Arc::clone(arm)), at, worker.index)))
    });
    let Some((copy, place, visit)) = ready else {
        return worker.shared.routes(worker.index).change(service, |of| of.mirror_dropped += 1);
    };
    let (worker, service) = (Rc::clone(worker), service.clone());
    tokio::task::spawn_local(async move {
        // Its instance stays as long as it is asked, which is not for long.
        let (_place, visit) = (place, visit);
        let answered = tokio::time::timeout(MIRROR_MAX, answer(&visit, &copy)).await;
        worker.shared.routes(worker.index).change(&service, |of| match answered {
            Ok(true) => of.mirrored += 1,
            Ok(false) | Err(_) => of.mirror_failed += 1,
        });
    });
}

fn marked(mut copy: Vec<u8>) -> Option<Vec<u8>> {
    let line = copy.windows(2).position(|pair| pair == b"\r\n")?;
    copy.splice(line..line, MARK.iter().copied());
    Some(copy)
}

/// Whether an answer came to its end; its content is thrown away.
async fn answer(visit: &Visit, copy: &[u8]) -> bool {
    let Ok(mut stream) = connect(visit.endpoint().address, CONNECT_MAX.min(MIRROR_MAX)).await
    else {
        return false;
    };
    if stream.write_all(copy).await.is_err() {
        return false;
    }
    let (mut buffer, mut begun) = (vec![0; 4 * 1024], false);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return begun,
            Ok(count) => begun |= buffer[..count].starts_with(b"HTTP/1."),
            Err(_) => return false,
        }
    }
}
