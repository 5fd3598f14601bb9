// Loaded before a Node.js program (NODE_OPTIONS=--require) by `sidekey run` and `sidekey env`. Versions whose own clients
// ignore proxy variables reach the hosts of providers through Sidekey all the same: a TLS connection to one of them is made
// through a CONNECT tunnel. Connections that already go through a proxy bring a socket along and are left alone.
'use strict';

const module_ = require('node:module');
const net = require('node:net');
const tls = require('node:tls');
const { Duplex } = require('node:stream');

const proxy = parse(process.env.HTTPS_PROXY || process.env.https_proxy);
const hosts = (process.env.SIDEKEY_HOSTS || '').split(',').filter(Boolean);

if (proxy && hosts.length > 0) {
  const connect = tls.connect;
  tls.connect = function (...given) {
    const { options, callback } = normalize(given);
    const host = String(options.host || options.servername || 'localhost').toLowerCase().replace(/\.$/, '');
    if (options.socket || options.path || !isMeant(host)) return connect.apply(this, given);
    const { stream, raw } = tunnel(host, options.port || 443, options.timeout);
    const servername = options.servername || (net.isIP(host) ? '' : host);
    const socket = connect.call(this, { ...options, host, servername, socket: stream }, callback);
    // An idle connection must not keep the program alive.
    socket.ref = () => (raw.ref(), socket);
    socket.unref = () => (raw.unref(), socket);
    return socket;
  };
  module_.syncBuiltinESMExports();
}

function parse(text) {
  try {
    const url = new URL(text);
    const credential = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
    return {
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: Number(url.port) || 80,
      authorization: url.username ? `Basic ${Buffer.from(credential).toString('base64')}` : undefined,
    };
  } catch {
    return undefined;
  }
}

// tls.connect(options, callback), (port, host, options, callback), (port, options, callback), (path, options, callback)
function normalize(given) {
  const rest = [...given];
  const callback = typeof rest[rest.length - 1] === 'function' ? rest.pop() : undefined;
  const options = {};
  if (typeof rest[0] === 'number' || (typeof rest[0] === 'string' && /^\d+$/.test(rest[0]))) {
    options.port = Number(rest.shift());
    if (typeof rest[0] === 'string') options.host = rest.shift();
  } else if (typeof rest[0] === 'string') {
    options.path = rest.shift();
  }
  return { options: { ...options, ...rest[0], ...rest[1] }, callback };
}

function isMeant(host) {
  if (host === 'localhost' || host === '::1' || /^127\./.test(host)) return false;
  return hosts.some((known) => known === '*' || known === host || (known.startsWith('*.') && host.endsWith(known.slice(1))));
}

// What TLS is spoken over: everything that follows the answer to CONNECT.
function tunnel(host, port, timeout) {
  const raw = net.connect({ host: proxy.host, port: proxy.port });
  raw.setNoDelay(true);
  let head = Buffer.alloc(0);
  let isOpen = false;
  let waiting;
  const stream = new Duplex({
    read: () => raw.resume(),
    write(chunk, _encoding, done) {
      if (isOpen) raw.write(chunk, done);
      else waiting = () => raw.write(chunk, done);
    },
    final: (done) => (raw.end(), done()),
    destroy: (error, done) => (raw.destroy(), done(error)),
  });
  const authority = net.isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
  const credential = proxy.authorization ? `Proxy-Authorization: ${proxy.authorization}\r\n` : '';
  raw.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${credential}\r\n`);
  raw.on('data', (chunk) => {
    if (isOpen) {
      if (!stream.push(chunk)) raw.pause();
      return;
    }
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) {
      if (head.length > 16384) stream.destroy(new Error('the proxy answers no HTTP'));
      return;
    }
    const status = head.subarray(0, head.indexOf('\r\n')).toString('latin1');
    if (!/^HTTP\/1\.[01] 200\b/.test(status)) {
      stream.destroy(new Error(`Sidekey refused a connection to ${authority}: ${status}`));
      return;
    }
    isOpen = true;
    if (end + 4 < head.length) stream.push(head.subarray(end + 4));
    head = undefined;
    if (waiting) waiting();
  });
  raw.on('end', () => (isOpen ? stream.push(null) : stream.destroy(new Error('the proxy hung up'))));
  raw.on('error', (error) => stream.destroy(error));
  raw.on('close', () => stream.destroyed || stream.readableEnded || stream.push(null));
  if (timeout) raw.setTimeout(timeout, () => stream.emit('timeout'));
  return { stream, raw };
}
