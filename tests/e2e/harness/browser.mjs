// One Chromium for a story file, one context and page per participant, and the static server the pages come from.

import { createServer } from 'node:http';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createWriteStream } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { COLOUR_TOLERANCE, PALETTE } from './palette.mjs';
import { ARTEFACTS } from './server.mjs';

const FILES = {
  '/': ['page/index.html', 'text/html; charset=utf-8'],
  '/peer.js': ['page/peer.js', 'text/javascript; charset=utf-8'],
  '/livekit-client.e2ee.worker.js': ['../node_modules/livekit-client/dist/livekit-client.e2ee.worker.js', 'text/javascript; charset=utf-8'],
  '/livekit-client.umd.js': ['../node_modules/livekit-client/dist/livekit-client.umd.js', 'text/javascript; charset=utf-8'],
};

/** Of a browser behind a link. Pages from localhost may do what insecure ones may not. */
const LINK_PAGE = 'http://localhost/';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  '--disable-quic',
  // Servers of the stories have certificates of their own making.
  '--ignore-certificate-errors',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // Every page of a call is in the background of some other.
  '--disable-background-timer-throttling',
  '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows',
];

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** What draws and reads pictures and tones in a page, as one script. */
export async function picturesScript() {
  const constants = `const PALETTE = ${JSON.stringify(PALETTE)};\nconst COLOUR_TOLERANCE = ${COLOUR_TOLERANCE};\n`;
  return constants + (await readFile(here('page/pictures.js'), 'utf8'));
}

/** What stands under that address, and its type; null where nothing does. */
async function fileAt(url) {
  const { pathname } = new URL(url, 'http://localhost');
  if (pathname === '/pictures.js') return [await picturesScript(), 'text/javascript; charset=utf-8'];
  const [path, type] = FILES[pathname] ?? [];
  return path ? [await readFile(here(path)), type] : null;
}

async function serveFiles() {
  const server = createServer(async (request, response) => {
    const [body, type] = (await fileAt(request.url)) ?? [];
    if (!type) return response.writeHead(404).end();
    response.writeHead(200, { 'content-type': type });
    response.end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

/** Answers what a page asks of its own origin without a network, which its browser's namespace has no server in. */
async function answerFiles(context) {
  await context.route(`${LINK_PAGE}**`, async (route) => {
    const [body, contentType] = (await fileAt(route.request().url())) ?? [];
    await route.fulfill(contentType ? { body, contentType } : { status: 404 });
  });
}

/**
 * Chromium with generated cameras; `open` gives a page of its own cookie jar, its console kept in the artefacts. With a
 * `link` (see link.mjs) it runs at the link's far end, and finds the server at the near one.
 */
export async function startBrowser(label, { link } = {}) {
  const files = link ? null : await serveFiles();
  const browser = await chromium.launch({
    executablePath: link ? here('at_link.sh') : (process.env.CHROMIUM_BIN ?? '/usr/bin/chromium'),
    env: link ? { ...process.env, LINK_PID: String(link.pid) } : process.env,
    headless: true,
    ignoreDefaultArgs: ['--mute-audio'],
    args: ['--headless=new', ...FLAGS],
  });
  const log = createWriteStream(`${ARTEFACTS}${label}.pages.log`);
  return {
    peerPage: files ? `http://127.0.0.1:${files.address().port}/` : LINK_PAGE,
    /** Where the server is, seen from here. */
    serverHost: link?.here ?? '127.0.0.1',
    async open(url, name, { context: contextOptions = {}, prepare } = {}) {
      const context = await browser.newContext(contextOptions);
      if (link) {
        // Addresses of a lab are none of the Internet's: Chromium asks before a page may speak to them.
        await context.grantPermissions(['local-network-access']);
        await answerFiles(context);
      }
      const page = await context.newPage();
      page.on('console', (message) => log.write(`${name} ${message.type()}: ${message.text()}\n`));
      page.on('pageerror', (error) => log.write(`${name} uncaught: ${error.stack}\n`));
      await prepare?.(page);
      await page.goto(url);
      return page;
    },
    async close() {
      await browser.close();
      files?.closeAllConnections();
      files?.close();
      log.end();
    },
  };
}
