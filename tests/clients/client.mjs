// The scenario of the client tests with the TypeScript SDK 1.x or 2.x, which MCP_SDK names (tests/clients/README.md).
import readline from 'node:readline';

const { MCP_URL: url, MCP_TOKEN: token, MCP_SDK: sdk, MCP_ERA: era, MCP_LONG: long } = process.env;
const show = (step, facts = {}) => console.log(JSON.stringify({ step, ...facts }));
const facts = (result) => ({ isError: result.isError === true, text: result.content[0].text });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function connect() {
  const options = { requestInit: { headers: { Authorization: `Bearer ${token}` } } };
  if (sdk === '1') {
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const client = new Client({ name: 'clients', version: '1' });
    await client.connect(new StreamableHTTPClientTransport(new URL(url), options));
    return client;
  }
  const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
  const mode = era === 'legacy' ? 'legacy' : 'auto';
  const client = new Client({ name: 'clients', version: '1' }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), options));
  return client;
}

const client = await connect();
const call = (name, args, options) =>
  sdk === '1'
    ? client.callTool({ name, arguments: args }, undefined, options)
    : client.callTool({ name, arguments: args }, options);
show('connect', { version: client.getNegotiatedProtocolVersion?.() ?? client.transport.protocolVersion });
if (long) {
  show('long', facts(await call('slow', { seconds: Number(long) }, { timeout: (Number(long) + 60) * 1000 })));
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
await new Promise((resolve) => readline.createInterface({ input: process.stdin }).once('line', resolve));
show('again', facts(await call('echo', { text: 'again' })));
process.exit(0);
