-- Sends each signed body once. Thread N reads the lines of PREFIX.N: 64 characters of signature,
-- then the body. PREFIX is the first argument after "--".

local threads = {}

function setup(thread)
  thread:set("index", #threads)
  table.insert(threads, thread)
end

function init(args)
  bodies = assert(io.open(args[1] .. "." .. index, "rb"))
  ran_out = false
  head = "POST /webhook HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nContent-Type: application/json\r\nX-Signature: "
end

function request()
  local line = bodies:read("*l")
  if not line then
    ran_out = true
    wrk.thread:stop()
    return "GET /health/live HTTP/1.1\r\nHost: " .. wrk.host .. "\r\n\r\n"
  end
  return head .. line:sub(1, 64) .. "\r\nContent-Length: " .. (#line - 64) .. "\r\n\r\n" .. line:sub(65)
end

function done(summary, latency, requests)
  local empty = false
  for _, thread in ipairs(threads) do
    empty = empty or thread:get("ran_out")
  end
  local errors = summary.errors
  io.write(string.format(
    'result {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, '
      .. '"status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "ran_out": %s}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect, errors.read, errors.write, errors.timeout, tostring(empty)))
end
