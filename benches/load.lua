-- What `cargo xtask bench` adds to wrk: requests over many routes, and one line of figures that a
-- program can read. Arguments: PATH, then optionally HOSTS PREFIXES REQUESTS.

function init(arguments)
  local path = arguments[1]
  local hosts, prefixes = tonumber(arguments[2] or "0"), tonumber(arguments[3] or "0")
  if hosts == 0 then
    wrk.path = path
    return
  end
  local requests, at = {}, 0
  -- A step without a common divisor walks over all hosts before it repeats one.
  for index = 0, tonumber(arguments[4]) - 1 do
    wrk.headers["Host"] = "host" .. (index * 1009) % hosts .. ".test"
    requests[index + 1] = wrk.format("GET", "/prefix" .. index % prefixes .. path)
  end
  -- Defined only here: without it wrk sends one ready request, which costs it less.
  request = function()
    at = at % #requests + 1
    return requests[at]
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    "figures requests=%d duration_us=%d p50_us=%d p99_us=%d errors=%d\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
