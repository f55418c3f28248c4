// What the Inspector is too polite for: calls of tools that it was not shown, calls in a loop, and bare connections.
// Runs in an agent's pod: `node --input-type=module - '<task as JSON>'`; prints one JSON object a line.
import https from 'node:https';
import net from 'node:net';

const task = JSON.parse(process.argv[2]);
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const now = () => performance.timeOrigin + performance.now();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const connections = new https.Agent({ keepAlive: true, maxSockets: 1 });
let id = 0;

// One JSON-RPC request in the stateless revision. Resolves to {status, reply} or {broken}; never rejects.
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
    ...(task.token ? { Authorization: `Bearer ${task.token}` } : {}),
  };
  return new Promise((resolve) => {
    const sent = https.request(task.url, { method: 'POST', headers, agent: connections, timeout: 5000 }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (part) => { text += part; });
      answer.on('error', (error) => resolve({ broken: error.message }));
      answer.on('end', () => resolve({ status: answer.statusCode, ...parsed(text) }));
    });
    sent.on('timeout', () => sent.destroy(new Error('no answer within 5 s')));
    sent.on('error', (error) => resolve({ broken: error.code ?? error.message }));
    sent.end(body);
  });
}

// The reply in a body that is JSON or a stream of events.
function parsed(text) {
  const event = text.split('\n').filter((line) => line.startsWith('data:')).pop();
  try {
    return { reply: JSON.parse(event ? event.slice(5) : text) };
  } catch {
    return { text };
  }
}

const accepted = (answer) => answer.status === 200 && !answer.reply?.error;

const tasks = {
  // One request.
  async request() {
    say(await request(task.method, task.params ?? {}));
  },

  // Asks again and again; says when the first answer came, and then when the first refusal did.
  async untilRefused() {
    const first = await request('tools/list', {});
    say({ ready: accepted(first), ...(accepted(first) ? {} : first) });
    const until = now() + task.forMs;
    let asked = 1;
    while (now() < until) {
      const answer = await request('tools/list', {});
      asked += 1;
      if (!accepted(answer)) {
        say({ refusedAt: now(), asked, ...answer });
        return;
      }
      await pause(2);
    }
    say({ refusedAt: null, asked });
  },

  // Converts times for a while, and checks every answer; says how each ended.
  async hammer() {
    const counts = { results: 0, refusals: 0, broken: 0, wrong: 0 };
    const odd = [];
    const until = now() + task.forMs;
    let minute = 0;
    say({ ready: true });
    while (now() < until) {
      minute = (minute + 7) % 1440;
      const clock = (m) => `${String(Math.floor(m / 60)).padStart(2, '0')}:${String(m % 60).padStart(2, '0')}`;
      const call = { name: 'convert_time', arguments: { source_timezone: 'UTC', time: clock(minute), target_timezone: 'Asia/Tokyo' } };
      const answer = await request('tools/call', call);
      const text = answer.reply?.result?.content?.[0]?.text ?? '';
      if (answer.broken) {
        counts.broken += 1;
        await pause(20);
      } else if (answer.reply?.result?.isError || answer.reply?.error || answer.status !== 200) {
        counts.refusals += 1;
        if (odd.length < 3) odd.push(answer);
        await pause(20);
      } else if (answer.reply?.id === id && text.includes(`T${clock((minute + 540) % 1440)}:00+09:00`)) {
        counts.results += 1;
      } else {
        counts.wrong += 1;
        odd.push(answer);
      }
    }
    say({ ...counts, asked: id, odd });
  },

  // Opens a TCP connection.
  async connect() {
    const socket = net.connect({ host: task.host, port: task.port });
    const outcome = await Promise.race([
      new Promise((resolve) => socket.once('connect', () => resolve({ connected: true }))),
      new Promise((resolve) => socket.once('error', (error) => resolve({ connected: false, error: error.code }))),
      pause(task.forMs).then(() => ({ connected: false, error: `nothing within ${task.forMs} ms` })),
    ]);
    socket.destroy();
    say(outcome);
  },
};

await tasks[task.do]();
connections.destroy();
