-- Loaded by the other scripts: what wrk counted, as one line of JSON for benchmarks/proxy/load.py.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "microseconds": %d, "bytes": %d, "status": %d, "timeouts": %d, "broken": %d, ' ..
    '"mean": %.1f, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration, summary.bytes, errors.status, errors.timeout,
    errors.connect + errors.read + errors.write,
    latency.mean, latency:percentile(50), latency:percentile(99)))
end
