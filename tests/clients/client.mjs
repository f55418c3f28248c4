// The scenarios of the client tests with the TypeScript SDK 1.x or 2.x, which MCP_SDK names (tests/clients/README.md).
import fs from 'node:fs';
import readline from 'node:readline';

const { MCP_URL: url, MCP_TOKEN: token, MCP_SDK: sdk, MCP_ERA: era, MCP_LONG: long } = process.env;
const show = (step, facts = {}) => console.log(JSON.stringify({ step, ...facts }));
const facts = (result) => ({ isError: result.isError === true, text: result.content[0].text });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function connect(options = { requestInit: { headers: { Authorization: `Bearer ${token}` } } }) {
  const [about, endpoint] = [{ name: 'clients', version: '1' }, new URL(url)];
  if (sdk === '1') {
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const client = new Client(about);
    await client.connect(new StreamableHTTPClientTransport(endpoint, options));
    return client;
  }
  const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
  const client = new Client(about, { versionNegotiation: { mode: era === 'legacy' ? 'legacy' : 'auto' } });
  await client.connect(new StreamableHTTPClientTransport(endpoint, options));
  return client;
}

// Waits for a line of the test.
const lines = readline.createInterface({ input: process.stdin });
const said = () => new Promise((resolve) => lines.once('line', resolve));

// Returns what a call ends with that fails or is refused; null if it succeeds.
async function failure(call) {
  try {
    const { isError, text } = facts(await call);
    return isError ? text : null;
  } catch (error) {
    return String(error);
  }
}

// Sends each request with the token in a file, which is read again if it is refused. What is answered with 401 has not been done,
// so repeating it is safe.
function withTokenFile(path) {
  let current = fs.readFileSync(path, 'utf8');
  const send = (input, init) => {
    const headers = new Headers(init?.headers);
    headers.set('Authorization', `Bearer ${current}`);
    return fetch(input, { ...init, headers });
  };
  return async (input, init) => {
    const response = await send(input, init);
    if (response.status !== 401) return response;
    current = fs.readFileSync(path, 'utf8');
    return send(input, init);
  };
}

// The scenario of refusals that the gateway gives from the headers alone.
async function refusals() {
  let client = await connect();
  const echo = (text) => client.callTool({ name: 'echo', arguments: { text } });
  show('too-large', { error: await failure(echo('x'.repeat(1_000_000))) });
  show('after-too-large', facts(await echo('after')));
  show('ready');
  await said();
  let error = null;
  while (error === null) error = await failure(echo('flooded'));
  show('flooded', { error });
  await said();
  while ((await failure(echo('flooded'))) !== null) await sleep(100);
  show('after-flooded', facts(await echo('after')));
  const headers = { Authorization: `Bearer ${process.env.MCP_EXPIRED}` };
  show('expired', { error: await connect({ requestInit: { headers } }).then(() => null, String) });
  const send = withTokenFile(process.env.MCP_TOKEN_FILE);
  show('token-read');
  await said();
  client = await connect({ fetch: send });
  show('read-again', facts(await echo('after')));
  process.exit(0);
}

if (process.env.MCP_REFUSALS) await refusals();

const client = await connect();
const call = (name, args, options) =>
  sdk === '1'
    ? client.callTool({ name, arguments: args }, undefined, options)
    : client.callTool({ name, arguments: args }, options);
show('connect', { version: client.getNegotiatedProtocolVersion?.() ?? client.transport.protocolVersion });
if (long) {
  let seen = 0;
  const onprogress = process.env.MCP_LONG_PROGRESS && (() => seen++);
  const result = await call('slow', { seconds: Number(long) }, { timeout: (Number(long) + 60) * 1000, onprogress });
  show('long', { ...facts(result), seen });
  process.exit(0);
}
show('list', { tools: (await client.listTools()).tools.map((tool) => tool.name) });
show('call', facts(await call('echo', { text: 'hello' })));
show('null', facts(await call('echo', { text: 'hello', note: null })));
show('refused', facts(await call('echo', { text: 7 })));
// A number that JavaScript writes as 725653563933458400: beyond what every reader reads alike.
show('large', facts(await call('echo', { text: 725653563933458432 })));
show('structured', facts(await call('structured', { n: 7 })));
show('structured-refused', facts(await call('structured', { n: -1 })));
show('structured-failed', facts(await call('structured', { n: 0 })));
try {
  await call('nothing', {});
} catch (error) {
  show('unknown', { code: error.code });
}
const seen = [];
await call('progress', { steps: 3 }, { onprogress: ({ progress }) => seen.push(progress) });
show('progress', { seen });
const controller = new AbortController();
const aborted = call('slow', { seconds: 60 }, { signal: controller.signal }).catch((error) => String(error));
while ((await call('started', {})).content[0].text === '0') await sleep(100);
controller.abort('enough');
show('cancel', { isError: true, text: await aborted });
let count = '0';
while (count === '0') {
  await sleep(100);
  count = (await call('cancelled', {})).content[0].text;
}
show('cancelled', { isError: false, text: count });
show('restart');
await said();
show('again', facts(await call('echo', { text: 'again' })));
process.exit(0);
