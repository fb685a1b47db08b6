//! Every limit of the data plane, with its reason. None of them is configurable yet.

use std::time::Duration;

/// From the first byte of a request to the end of its head: a head fits one packet, and a client
/// that drips bytes holds a connection for no good.
pub const HEADER_READ_MAX: Duration = Duration::from_secs(10);
/// Header bytes of a request: what nginx allows in total by default (4 times 8 KiB).
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Header fields of a request: the codec's own default, named here to be documented.
pub const HEADERS_MAX: usize = 100;
/// Bytes of a request's target: as the design says, and far above what browsers send.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one chunk's size line, and of all trailers of one message.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// See above.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Interim responses (1xx) to one request: hints and progress, never a stream.
pub const INTERIM_RESPONSES_MAX: usize = 32;
/// How long a closing connection's last input is read and thrown away, so that the kernel does not
/// reset what the client has yet to read.
pub const LINGER_MAX: Duration = Duration::from_secs(2);
/// How fast a client has to read a long answer of our own, beyond that time.
pub const OWN_ANSWER_BYTES_PER_SECOND_MIN: u64 = 10_000;
/// Read buffer of one connection: a full header block and a body frame.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long a client connection may rest between requests: as nginx.
pub const KEEP_ALIVE_IDLE_MAX: Duration = Duration::from_secs(75);
/// The same once the process was told to stop: long enough that a client which has just been
/// answered, and asks again at once, is told with its answer that it was the last.
pub const LAST_REST_MAX: Duration = Duration::from_secs(1);
/// Client connections at once; more wait in the kernel's accept queue. With one connection to an
/// instance each, two file descriptors are needed per client connection.
pub const CONNECTIONS_MAX: usize = 16_384;
/// File descriptors kept back for listeners, the table file and the admin socket.
pub const DESCRIPTORS_RESERVED: usize = 64;
/// Client connections of one address (of one /64, for IPv6) at once: far above what a browser or a
/// household opens. This machine's own addresses are not counted: a proxy may stand behind them.
pub const CONNECTIONS_PER_ADDRESS_MAX: u32 = 1_000;
/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub const ACCEPT_QUEUE: i32 = 4_096;
/// Pause after the process ran out of file descriptors, so that accepting does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Opening a connection to an instance on the same machine or network takes far less.
pub const CONNECT_MAX: Duration = Duration::from_secs(1);
/// The same where no other instance is left to be asked: a connection's first packet that an
/// instance with a full accept queue dropped is sent again after one second.
pub const CONNECT_LAST_MAX: Duration = Duration::from_secs(3);
/// How long a new connection is waited for before one that comes free meanwhile is taken instead:
/// nearly all are there sooner, and one that was begun in vain costs both sides.
pub const CONNECT_ALONE: Duration = Duration::from_millis(5);
/// Repetitions of a request that was (or may have been) handed to a connection: the first stale
/// connection is bad luck, the second one bad timing.
pub const RETRIES_MAX: usize = 2;
/// Instances of a version that are asked for a connection before the request is given up: nothing
/// was sent, so asking the next one is safe.
pub const INSTANCES_TRIED_MAX: usize = 8;
/// Oldest resting connection to an instance that is used again. Servers close resting connections
/// on their own: the shortest common limits are 5 s (Node.js, uvicorn, Apache); staying a second
/// below means that the connection is ours to close. A shorter limit announced by the server in
/// `Keep-Alive: timeout=` wins.
pub const UPSTREAM_IDLE_MAX: Duration = Duration::from_secs(4);
/// The same for a request that could not be repeated if the server closed the connection at the
/// very moment of sending: below the shortest limit seen in the wild (2 s, gunicorn).
pub const UPSTREAM_IDLE_MAX_UNREPEATABLE: Duration = Duration::from_secs(1);
/// Up to this rest, a request that can be repeated is sent without asking the kernel first: the
/// event loop has been there a moment ago, and a system call saved is 2 % of a request.
pub const UPSTREAM_IDLE_UNASKED_MAX: Duration = Duration::from_millis(20);
/// Resting connections per worker and instance; more than that were a burst.
pub const UPSTREAM_IDLE_COUNT_MAX: usize = 256;
/// Clients whose rates are remembered for a route: 1 MiB.
pub const CLIENTS_REMEMBERED: usize = 65_536;
/// Locks they are spread over, so that workers seldom meet at one.
pub const CLIENT_LOCKS: usize = 16;
/// How long a client may pause while it uploads before the request is given up.
pub const UPLOAD_PAUSE_MAX: Duration = Duration::from_secs(30);

/// A request's body may come at any rate for this long; after that, an average below the least
/// rate is an attack or a dead link. Only until the response head: then it is a conversation.
pub const RECEIVE_GRACE: Duration = Duration::from_secs(10);
/// The least rate: a tenth of the slowest modem anybody may still have.
pub const RECEIVE_BYTES_PER_SECOND_MIN: u64 = 500;

/// From the first byte of a TLS connection to its first request's: as long as a head may take.
pub const TLS_HANDSHAKE_MAX: Duration = HEADER_READ_MAX;
/// Shaking hands with an instance takes a few round trips on the same network.
pub const UPSTREAM_HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Certificates that end within this time are warned about: time enough for a person to renew one.
pub const CERTIFICATE_WARNING: Duration = Duration::from_hours(14 * 24);
/// How often files with certificates are looked at for a change.
pub const CERTIFICATE_LOOK: Duration = Duration::from_secs(2);

/// Requests at once on one HTTP/2 connection: what browsers and gRPC clients are used to.
pub const HTTP2_STREAMS_MAX: u32 = 100;
/// Header bytes of one HTTP/2 request, as its standard counts them (32 more per field).
pub const HTTP2_HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Streams that a client took back before they were looked at; more end the connection.
pub const HTTP2_PENDING_RESETS_MAX: usize = 20;
/// Streams that had to be reset for a client's mistakes; more end the connection.
pub const HTTP2_ERROR_RESETS_MAX: usize = 32;
/// What a client may send ahead on one stream, and on all of them.
pub const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
/// See above.
pub const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams a client may take back: so many at once, and so many more per second.
pub const HTTP2_RESETS: (u32, u32) = (200, 20);
/// Frames that carry nothing (SETTINGS, PING, PRIORITY, empty DATA, unknown ones): so many at
/// once, and so many more per second.
pub const HTTP2_IDLE_FRAMES: (u32, u32) = (1_000, 100);
/// A silent HTTP/2 connection is asked whether anybody is there, and is given as long to answer.
pub const HTTP2_PING: Duration = Duration::from_secs(20);
/// How often the clocks of an HTTP/2 connection are looked at.
pub const HTTP2_LOOK: Duration = Duration::from_secs(5);
/// How long an HTTP/2 client may take nothing of an answer that is there.
pub const HTTP2_STALL_MAX: Duration = TCP_USER_TIMEOUT;

/// First keep-alive probe of the kernel on a silent connection: finds hosts that vanished.
pub const TCP_KEEPALIVE: Duration = Duration::from_mins(1);
/// Unacknowledged or unreadable data for this long ends a connection: a vanished or stuck client.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_mins(5);

/// A worker acknowledges within microseconds; this is a hang.
pub const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(5);
/// Versions whose counters stay readable after they left the table; the oldest drained go first.
pub const RETIRED_ARMS_MAX: usize = 1_000;
/// Largest table accepted: 10,000 routes take about 3 MB.
pub const TABLE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest wait for the previous owner of the state directory to let go of it.
pub const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a process that was replaced may go on with what it could not hand over: tunnels, long
/// answers, connections of clients that neither ask nor close. Each of them has limits of its own
/// that are shorter; this one keeps old processes from piling up over many upgrades.
pub const RETIRING_MAX: Duration = Duration::from_hours(1);
/// One step of a handover: the other process reads a large table and builds it in a tenth of that.
pub const HANDOVER_STEP_MAX: Duration = Duration::from_secs(10);
/// From the word to take over to its confirmation: nobody accepts meanwhile, so it is short.
pub const HANDOVER_COMMIT_MAX: Duration = Duration::from_secs(5);
/// How often a process that was replaced tells what it still counts, if that has changed.
pub const RETIRING_COUNT_INTERVAL: Duration = Duration::from_millis(20);
/// How long a process that was replaced may be out of reach before it is taken for dead, and how
/// long it keeps connections for a successor it cannot reach.
pub const RETIRING_LOST_MAX: Duration = Duration::from_secs(5);
/// How long requests in flight may go on after the process was told to stop.
pub const STOP_GRACE: Duration = Duration::from_secs(30);
/// Batches of rollouts' requests that are kept for a control plane that is away: seven minutes of
/// one rollout.
pub const BATCHES_MAX: usize = 4_096;
/// Buckets of latencies in them, 16 bytes each: 8 MB.
pub const BATCH_BUCKETS_MAX: usize = 512 * 1024;
/// Copies of requests for a candidate on their way at once, per worker: enough for 1,000 a second
/// that take a twentieth of one each.
pub const MIRRORS_MAX: usize = 64;
/// Longest such a copy may take: a candidate that hangs holds up neither its end nor other copies.
pub const MIRROR_MAX: Duration = Duration::from_secs(5);
/// Bytes of lines that a worker hands over at once: one write for many requests.
pub const ACCESS_LOG_BATCH_BYTES: usize = 32 * 1024;
/// Bytes of lines that a worker keeps while the writer is behind; what comes then is dropped.
pub const ACCESS_LOG_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Handed over and not written: a disk that stops for a moment loses nothing at 10,000 lines a
/// second.
pub const ACCESS_LOG_BATCHES_MAX: usize = 64;
/// Bytes of one text of a client's (path, host, method, request id) in a line.
pub const ACCESS_LOG_TEXT_BYTES_MAX: usize = 2 * 1024;
/// A longer file makes room for a new one.
pub const ACCESS_LOG_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Older files that are kept: with the newest one 320 MB.
pub const ACCESS_LOG_FILES_MAX: usize = 4;
/// How long the end waits for the last lines to be written.
pub const ACCESS_LOG_FINISH_MAX: Duration = Duration::from_secs(1);
