// node -r loopback.cjs SERVER: makes a server that would listen on every address listen on a free port of
// 127.0.0.1, or on the one that LOOPBACK_PORT names, and prints where.
const net = require('node:net');

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (_port, ...rest) {
  this.once('listening', () => console.error(`loopback: http://127.0.0.1:${this.address().port}`));
  return listen.call(this, { port: Number(process.env.LOOPBACK_PORT ?? 0), host: '127.0.0.1' }, rest.find((x) => typeof x === 'function'));
};
