// The voice API does what its OpenAPI document says, whatever it is sent: schemathesis makes requests from the document,
// good and bad ones, and looks at every answer. A fixed seed and number, so that it is the same every time.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ARTEFACTS, startServer } from '../harness/server.mjs';
import { SECRET, Town, userToken, VOICE } from '../harness/voice.mjs';

const EXAMPLES = 10;
const SEED = 1;
const DEADLINE_MS = 240_000;

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

let server = null;
after(() => server?.stop());

test('no answer of the voice API is against its document', { timeout: DEADLINE_MS }, async (context) => {
  server = await startServer('openapi', () => ({ voice: VOICE }));
  await Town.found(server);
  const wishes = ['--phases', 'examples,coverage,fuzzing', '--max-examples', EXAMPLES, '--seed', SEED];
  const args = ['--config-file', here('../schemathesis.toml'), 'run', `${server.url}/voice/openapi.json`, ...wishes, '--no-color'];
  const env = { ...process.env, USER_TOKEN: userToken('3'), BACKEND_SECRET: SECRET };
  // Its own notes go where those of the other stories are.
  const st = spawn(process.env.SCHEMATHESIS_BIN ?? here('../.venv-schema/bin/st'), args.map(String), { env, cwd: ARTEFACTS });
  let said = '';
  for (const stream of [st.stdout, st.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text));
  const [code] = await once(st, 'close');
  context.diagnostic(said.match(/\d+ generated[^\n]*/)?.[0] ?? 'nothing was generated');
  assert.equal(code, 0, said);
  server.check();
});
