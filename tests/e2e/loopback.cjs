// Preload for servers that would listen on all interfaces: they listen on loopback, and say where.
const net = require('node:net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const callback = rest.find((r) => typeof r === 'function');
  this.once('listening', () => console.error(`LISTENING ${this.address().port}`));
  return listen.call(this, { port: Number(port), host: '127.0.0.1' }, callback);
};
