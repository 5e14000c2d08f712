// The tests' counter in JavaScript. It reads its own file at the start: that is when libuv makes its io_uring.
const crypto = require('crypto'), fs = require('fs'), http = require('http');
const cookie = crypto.randomBytes(8).toString('hex');
let count = 0, chain = Buffer.alloc(32);
const view = () => JSON.stringify({ count, chain: chain.toString('hex'), cookie });
const answer = (response) => response.writeHead(200, { 'Content-Length': view().length }).end(view());

fs.promises.readFile(__filename).then(() => http.createServer((request, response) => {
  if (request.method !== 'POST') return answer(response);
  const parts = [];
  request.on('data', (part) => parts.push(part)).on('end', () => {
    chain = crypto.createHash('sha256').update(chain).update(Buffer.concat(parts)).digest();
    count += 1;
    answer(response);
  });
}).listen(8080, '0.0.0.0'));
