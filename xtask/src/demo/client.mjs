// MCP client for what the Inspector refuses or cannot do: calls of tools that are not listed, calls in a loop, and
// plain TCP connections. It runs in an agent pod as `node --input-type=module - '<task as JSON>'`, and prints one JSON
// object per line.
import https from 'node:https';
import net from 'node:net';

const options = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const now = () => performance.timeOrigin + performance.now();
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const connections = new https.Agent({ keepAlive: true, maxSockets: 1 });
let id = 0;

// Sends one JSON-RPC request in the stateless revision. Resolves to {status, reply} or {transportError}; never rejects.
function request(method, params) {
  const meta = {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientCapabilities': {},
  };
  id += 1;
  const body = JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, _meta: meta } });
  const headers = {
    'Content-Type': 'application/json',
    Accept: 'application/json, text/event-stream',
    'MCP-Protocol-Version': '2026-07-28',
    'Mcp-Method': method,
    ...(params.name ? { 'Mcp-Name': params.name } : {}),
    ...(options.token ? { Authorization: `Bearer ${options.token}` } : {}),
  };
  return new Promise((resolve) => {
    const requestOptions = { method: 'POST', headers, agent: connections, timeout: 20_000 };
    const sent = https.request(options.url, requestOptions, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part) => { text += part; });
      response.on('error', (error) => resolve({ transportError: error.message }));
      response.on('end', () => resolve({ status: response.statusCode, ...parseReply(text) }));
    });
    sent.on('timeout', () => sent.destroy(new Error('no response within 20 s')));
    sent.on('error', (error) => resolve({ transportError: error.code ?? error.message }));
    sent.end(body);
  });
}

// Returns the reply in a body that is JSON or a stream of server-sent events.
function parseReply(text) {
  const event = text.split('\n').filter((line) => line.startsWith('data:')).pop();
  try {
    return { reply: JSON.parse(event ? event.slice(5) : text) };
  } catch {
    return { text };
  }
}

const accepted = (answer) => answer.status === 200 && !answer.reply?.error;

const tasks = {
  // Sends one request.
  async request() {
    print(await request(options.method, options.params ?? {}));
  },

  // Calls a tool several times without pause, and prints all answers.
  async repeat() {
    const answers = [];
    for (let turn = 0; turn < options.times; turn += 1) {
      answers.push(await request('tools/call', options.params));
    }
    print({ answers });
  },

  // Sends requests until one is refused. Prints a message after the first request, and one with the time of the
  // refusal.
  async callUntilRefused() {
    const first = await request('tools/list', {});
    print({ ready: accepted(first), ...(accepted(first) ? {} : first) });
    const deadline = now() + options.durationMs;
    let requests = 1;
    while (now() < deadline) {
      const answer = await request('tools/list', {});
      requests += 1;
      if (!accepted(answer)) {
        print({ refusedAt: now(), requests, ...answer });
        return;
      }
      await sleep(2);
    }
    print({ refusedAt: null, requests });
  },

  // Calls convert_time without pause and checks every answer. Prints a message at the start, and the counts at the end.
  async callInLoop() {
    const counts = { results: 0, refusals: 0, transportErrors: 0, wrong: 0 };
    const samples = [];
    const deadline = now() + options.durationMs;
    let minute = 0;
    print({ ready: true });
    while (now() < deadline) {
      minute = (minute + 7) % 1440;
      const clock = (m) => `${String(Math.floor(m / 60)).padStart(2, '0')}:${String(m % 60).padStart(2, '0')}`;
      const call = { name: 'convert_time', arguments: { source_timezone: 'UTC', time: clock(minute), target_timezone: 'Asia/Tokyo' } };
      const answer = await request('tools/call', call);
      const text = answer.reply?.result?.content?.[0]?.text ?? '';
      if (answer.transportError) {
        counts.transportErrors += 1;
        await sleep(20);
      } else if (answer.reply?.result?.isError || answer.reply?.error || answer.status !== 200) {
        counts.refusals += 1;
        if (samples.length < 3) samples.push(answer);
        await sleep(20);
      } else if (answer.reply?.id === id && text.includes(`T${clock((minute + 540) % 1440)}:00+09:00`)) {
        counts.results += 1;
      } else {
        counts.wrong += 1;
        samples.push(answer);
      }
    }
    print({ ...counts, requests: id, samples });
  },

  // Asks for its own limits five times a second, as an agent that stays within its rate. Prints a message at the start, and the
  // counts and the longest time without an answer at the end.
  async statusInLoop() {
    const counts = { results: 0, refusals: 0, transportErrors: 0, longestGapMs: 0 };
    const samples = [];
    const deadline = now() + options.durationMs;
    let last = now();
    print({ ready: true });
    while (now() < deadline) {
      const answer = await request('tools/call', { name: 'fleet_status', arguments: {} });
      if (answer.transportError) {
        counts.transportErrors += 1;
      } else if (accepted(answer) && !answer.reply.result?.isError) {
        counts.results += 1;
        counts.longestGapMs = Math.max(counts.longestGapMs, Math.round(now() - last));
        last = now();
      } else {
        counts.refusals += 1;
        if (samples.length < 3) samples.push(answer);
      }
      await sleep(200);
    }
    counts.longestGapMs = Math.max(counts.longestGapMs, Math.round(now() - last));
    print({ ...counts, samples });
  },

  // Opens a TCP connection, and prints whether that worked.
  async connect() {
    const socket = net.connect({ host: options.host, port: options.port });
    const outcome = await Promise.race([
      new Promise((resolve) => socket.once('connect', () => resolve({ connected: true }))),
      new Promise((resolve) => socket.once('error', (error) => resolve({ connected: false, error: error.code }))),
      sleep(options.durationMs).then(() => ({ connected: false, error: `none within ${options.durationMs} ms` })),
    ]);
    socket.destroy();
    print(outcome);
  },
};

await tasks[options.task]();
connections.destroy();
