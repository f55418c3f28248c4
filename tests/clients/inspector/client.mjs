// The scenario of the client tests with the command line of the MCP Inspector (tests/clients/README.md), one process for
// each step. It calls only tools that it has listed and shows no progress, so the steps `unknown` and `progress` are left
// out. Interrupting it cancels its call only since revision 2026-07-28, so before, `cancel` and `cancelled` are left out
// too.
import { execFile } from 'node:child_process';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';

const { MCP_URL: url, MCP_TOKEN: token, MCP_ERA: era } = process.env;
const inspector = fileURLToPath(new URL('node_modules/.bin/mcp-inspector', import.meta.url));
const show = (step, facts = {}) => console.log(JSON.stringify({ step, ...facts }));

// Runs the Inspector, which `signal` interrupts. A refused call is a result too, with another exit code. By default it
// gives up connecting after 15 seconds, which a busy machine can take.
function inspect(method, more, signal) {
  const server = ['--transport', 'http', '--server-url', url, '--header', `Authorization: Bearer ${token}`];
  const how = ['--protocol-era', era, '--stored-auth-only', '--connect-timeout', '0', '--format', 'json', '--quiet'];
  const options = { signal, killSignal: 'SIGINT' };
  return new Promise((resolve, reject) => {
    const words = [inspector, '--cli', ...server, ...how, '--method', method, ...more];
    execFile(process.execPath, words, options, (error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout).result);
      } catch {
        reject(error ?? new Error(`unexpected output: ${stdout}${stderr}`));
      }
    });
  });
}

async function call(tool, args, signal) {
  const words = ['--tool-name', tool, '--tool-args-json', JSON.stringify(args)];
  const result = await inspect('tools/call', words, signal);
  return { isError: result.isError === true, text: result.content[0].text };
}

show('connect', { version: (await inspect('initialize', [])).protocolVersion });
show('list', { tools: (await inspect('tools/list', [])).tools.map((tool) => tool.name) });
show('call', await call('echo', { text: 'hello' }));
show('null', await call('echo', { text: 'hello', note: null }));
show('refused', await call('echo', { text: 7 }));
show('large', await call('echo', { text: 725653563933458432 }));
show('structured', await call('structured', { n: 7 }));
show('structured-refused', await call('structured', { n: -1 }));
show('structured-failed', await call('structured', { n: 0 }));
if (era === 'modern') {
  const controller = new AbortController();
  const aborted = call('slow', { seconds: 60 }, controller.signal).catch((error) => String(error));
  while ((await call('started', {})).text === '0');
  controller.abort();
  show('cancel', { isError: true, text: await aborted });
  let cancelled = await call('cancelled', {});
  while (cancelled.text === '0') cancelled = await call('cancelled', {});
  show('cancelled', cancelled);
}
show('restart');
await new Promise((resolve) => readline.createInterface({ input: process.stdin }).once('line', resolve));
show('again', await call('echo', { text: 'again' }));
process.exit(0);
