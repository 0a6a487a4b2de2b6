// A small Internet in network namespaces: a client behind two routers, a server behind one, and somebody in the open.
//
//   cli ── edge2 ── edge ── inet ── snat ── srv          edge ── snat: the client's other way out, into the server's own network
//                            └── bob
//
// What the routers do (translate, refuse) is changed as a test goes on; who runs in a namespace stays. Needs root, iproute2 and
// nftables. Everything made here has a name of its own and is taken away by `close`.

import { execFileSync, spawn } from 'node:child_process';

const NAMES = ['inet', 'cli', 'edge2', 'edge', 'snat', 'srv', 'bob'];

/** Address of an end of a link, IPv4 and IPv6: [namespace, interface, IPv4/length, IPv6/length]. */
const LINKS = [
  [['cli', 'wan', '198.51.100.130/25', '2001:db8:1::2/64'], ['edge2', 'cli', '198.51.100.129/25', '2001:db8:1::1/64']],
  [['edge2', 'wan', '192.168.1.2/24', '2001:db8:3::2/64'], ['edge', 'edge2', '192.168.1.1/24', '2001:db8:3::1/64']],
  [['edge', 'wan', '198.51.100.2/25', '2001:db8:4::2/64'], ['inet', 'edge', '198.51.100.1/25', '2001:db8:4::1/64']],
  [['edge', 'lan', '10.0.9.2/24', '2001:db8:9::2/64'], ['snat', 'edge', '10.0.9.1/24', '2001:db8:9::1/64']],
  [['inet', 'snat', '203.0.113.1/28', '2001:db8:5::1/64'], ['snat', 'wan', '203.0.113.10/28', '2001:db8:5::2/64']],
  [['snat', 'srv', '10.0.0.1/24', '2001:db8:2::1/64'], ['srv', 'wan', '10.0.0.2/24', '2001:db8:2::2/64']],
  [['inet', 'bob', '192.0.2.1/24', '2001:db8:6::1/64'], ['bob', 'wan', '192.0.2.2/24', '2001:db8:6::2/64']],
];

/** [namespace, destination, next hop] for both families. */
const ROUTES = [
  ['cli', 'default', '198.51.100.129', '2001:db8:1::1'],
  ['edge2', 'default', '192.168.1.1', '2001:db8:3::1'],
  ['edge', 'default', '198.51.100.1', '2001:db8:4::1'],
  ['snat', 'default', '203.0.113.1', '2001:db8:5::1'],
  ['srv', 'default', '10.0.0.1', '2001:db8:2::1'],
  ['bob', 'default', '192.0.2.1', '2001:db8:6::1'],
];
const MORE_ROUTES = [
  ['inet', '198.51.100.128/25', '198.51.100.2'], ['inet', '2001:db8:1::/64', '2001:db8:4::2'],
  ['inet', '203.0.113.16/28', '203.0.113.10'], ['inet', '2001:db8:2::/64', '2001:db8:5::2'],
  ['edge', '198.51.100.128/25', '192.168.1.2'], ['edge', '2001:db8:1::/64', '2001:db8:3::2'],
  ['snat', '203.0.113.16/28', '10.0.0.2'],
];

/** The server's addresses as its clients know them. */
export const PUBLIC = { v4: '203.0.113.10', v6: '2001:db8:2::2', two: ['203.0.113.17', '203.0.113.18'] };

/** What the client's routers do, by name. No address of the client's changes: browsers drop what they are doing when one does. */
export const CLIENT_SIDES = {
  open: [],
  'UDP blocked': [['edge2', 'meta l4proto udp drop']],
  'only TCP 443': [['edge2', 'tcp dport 443 accept'], ['edge2', 'drop']],
  'symmetric NAT': [['edge', 'masquerade random,fully-random']],
  'IPv6 only': [['edge2', 'meta nfproto ipv4 drop']],
  'double NAT': [['edge2', 'masquerade'], ['edge', 'masquerade']],
};

/** What the server's router does, by name: nftables rules of its prerouting and postrouting. */
export const SERVER_SIDES = {
  '1:1 NAT': { pre: ['iifname "wan" ip daddr 203.0.113.10 dnat to 10.0.0.2'], post: ['oifname "wan" ip saddr 10.0.0.2 snat to 203.0.113.10'] },
  'published ports': {
    pre: ['iifname "wan" ip daddr 203.0.113.10 tcp dport 443 dnat to 10.0.0.2:443', 'iifname "wan" ip daddr 203.0.113.10 udp dport 443 dnat to 10.0.0.2:443'],
    post: ['oifname "wan" ip saddr 10.0.0.0/24 masquerade'],
  },
  'two addresses': { pre: [], post: [] },
  hairpin: {
    pre: ['ip daddr 203.0.113.10 dnat to 10.0.0.2'],
    // Whoever comes from within must get his answer through the router too.
    post: ['oifname "wan" ip saddr 10.0.0.2 snat to 203.0.113.10', 'oifname "srv" ip saddr { 10.0.9.0/24, 198.51.100.128/25 } masquerade'],
  },
};

/** Why there can be no lab here; null when there can. */
export function impossible() {
  if (process.getuid() !== 0) return 'needs root';
  for (const tool of ['ip', 'nft']) {
    try {
      execFileSync(tool, ['-V'], { stdio: 'ignore' });
    } catch {
      return `needs ${tool}`;
    }
  }
  return null;
}

export class Lab {
  #prefix = `pb${process.pid}-`;
  #holders = new Map();

  constructor() {
    try {
      this.#build();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #build() {
    for (const name of NAMES) {
      run('ip', 'netns', 'add', this.#prefix + name);
      this.#in(name, 'ip', 'link', 'set', 'lo', 'up');
      this.#in(name, 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1', 'net.ipv4.conf.all.rp_filter=0');
      this.#nft(name, 'add table inet lab', 'add chain inet lab forward { type filter hook forward priority 0 ; }',
        'add chain inet lab pre { type nat hook prerouting priority -100 ; }', 'add chain inet lab post { type nat hook postrouting priority 100 ; }');
    }
    for (const [one, other] of LINKS) {
      run('ip', 'link', 'add', 'name', one[1], 'netns', this.#prefix + one[0], 'type', 'veth', 'peer', 'name', other[1], 'netns', this.#prefix + other[0]);
      for (const [name, device, v4, v6] of [one, other]) {
        this.#in(name, 'ip', 'addr', 'add', v4, 'dev', device);
        this.#in(name, 'ip', 'addr', 'add', v6, 'dev', device, 'nodad');
        this.#in(name, 'ip', 'link', 'set', device, 'up');
      }
    }
    for (const [name, destination, v4, v6] of ROUTES) {
      this.#in(name, 'ip', 'route', 'add', destination, 'via', v4);
      this.#in(name, 'ip', '-6', 'route', 'add', destination, 'via', v6);
    }
    for (const [name, destination, via] of MORE_ROUTES) this.#in(name, 'ip', 'route', 'add', destination, 'via', via);
    for (const ip of PUBLIC.two) this.#in('srv', 'ip', 'addr', 'add', `${ip}/32`, 'dev', 'wan');
    // Somebody must be in a namespace for others to enter it by his process.
    for (const name of ['cli', 'srv', 'bob']) {
      this.#holders.set(name, spawn('ip', ['netns', 'exec', this.#prefix + name, 'sleep', '3600'], { stdio: 'ignore' }));
    }
  }

  /** The process whose network namespace is that of `name`. */
  pid(name) {
    return this.#holders.get(name).pid;
  }

  /** The network as it is from now on. */
  set(clientSide, serverSide) {
    const { pre, post } = SERVER_SIDES[serverSide];
    this.#nft('snat', 'flush chain inet lab pre', 'flush chain inet lab post', ...pre.map((rule) => `add rule inet lab pre ${ip(rule)}`), ...post.map((rule) => `add rule inet lab post ${ip(rule)}`));
    const inside = serverSide === 'hairpin';
    this.#in('edge', 'ip', 'route', 'replace', 'default', 'via', inside ? '10.0.9.1' : '198.51.100.1');
    this.#in('edge', 'ip', '-6', 'route', 'replace', 'default', 'via', inside ? '2001:db8:9::1' : '2001:db8:4::1');
    for (const [destination, via] of [['198.51.100.128/25', '10.0.9.2'], ['2001:db8:1::/64', '2001:db8:9::2']]) {
      if (inside) this.#in('snat', 'ip', 'route', 'replace', destination, 'via', via);
      else this.#try('snat', 'ip', 'route', 'del', destination, 'via', via);
    }
    for (const router of ['edge', 'edge2']) this.#nft(router, 'flush chain inet lab forward', 'flush chain inet lab post');
    for (const [router, rule] of CLIENT_SIDES[clientSide]) {
      if (rule.startsWith('masquerade')) this.#nft(router, `add rule inet lab post oifname { "wan", "lan" } meta nfproto ipv4 ${rule}`);
      else this.#nft(router, `add rule inet lab forward iifname "cli" ${rule}`);
    }
    // What routers remember of connections before is of a network that is no more.
    for (const router of ['edge', 'edge2', 'snat']) this.#try(router, 'conntrack', '-F');
  }

  #in(name, ...command) {
    run('ip', 'netns', 'exec', this.#prefix + name, ...command);
  }

  #try(name, ...command) {
    try {
      this.#in(name, ...command);
    } catch {
      // It is so already.
    }
  }

  #nft(name, ...rules) {
    execFileSync('ip', ['netns', 'exec', this.#prefix + name, 'nft', '-f', '-'], { input: `${rules.join('\n')}\n`, stdio: ['pipe', 'ignore', 'inherit'] });
  }

  close() {
    for (const holder of this.#holders.values()) holder.kill('SIGKILL');
    for (const name of NAMES) {
      try {
        run('ip', 'netns', 'del', this.#prefix + name);
      } catch {
        // Never made.
      }
    }
  }
}

/** In a table for both families a translation has to say which it is for. */
const ip = (rule) => rule.replace(/ (dnat|snat) to /, ' $1 ip to ');

function run(command, ...args) {
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
}
