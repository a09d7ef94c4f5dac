// Checks of stock grpc-js, as a client of a real kvsecure server; peers.py says how it is called.
//
// The messages come from kvsecure's own .proto files, below KVSECURE_PROTOS.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");
const https = require("node:https");
const { createInterface } = require("node:readline/promises");
const { setTimeout: sleep } = require("node:timers/promises");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const MEGABYTE = 1024 * 1024;
const MANY = 10_000;
// How many operations go into one transaction, to make many events with few calls.
const BATCH = 100;
const CALL_MS_MAX = 20_000;
const CHECK_MS_MAX = 30_000;
const { status } = grpc;
const prefix = `/stock/node/${process.hrtime.bigint()}/`;

const files = ["auth", "health", "kv", "lease", "reflection", "tenant", "watch"];
const loaded = loader.loadSync(
  files.map((file) => `kvsecure/proto/${file}.proto`),
  { includeDirs: [process.env.KVSECURE_PROTOS], keepCase: true, longs: String, defaults: true },
);

// The identity is the certificate of root, or none.
function connect(certified = true, options = {}) {
  const trusted = readFileSync(process.env.KVSECURE_CA);
  const pair = certified
    ? [readFileSync(process.env.KVSECURE_KEY), readFileSync(process.env.KVSECURE_CERT)]
    : [];
  return new grpc.Client(
    process.env.KVSECURE_ENDPOINT,
    grpc.credentials.createSsl(trusted, ...pair),
    {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
      "grpc.use_local_subchannel_pool": 1,
      ...options,
    },
  );
}

function soon(ms = CALL_MS_MAX) {
  return { deadline: Date.now() + ms };
}

function carrying(pairs, options = {}) {
  const metadata = new grpc.Metadata(options);
  for (const [name, value] of pairs) metadata.add(name, value);
  return metadata;
}

function methodOf(path) {
  const [service, name] = path.split("/");
  return loaded[service][name];
}

// Makes a unary call; the call itself is handed to `begun`.
function call(client, path, request, metadata = carrying([]), options = soon(), begun = () => {}) {
  const { requestSerialize, responseDeserialize } = methodOf(path);
  return new Promise((resolve, reject) => {
    const answered = (error, answer) => (error ? reject(error) : resolve(answer));
    begun(
      client.makeUnaryRequest(
        `/${path}`,
        requestSerialize,
        responseDeserialize,
        request,
        metadata,
        options,
        answered,
      ),
    );
  });
}

function open(client, path, metadata = carrying([]), options = soon()) {
  const { requestSerialize, responseDeserialize } = methodOf(path);
  const full = `/${path}`;
  return kept(
    client.makeBidiStreamRequest(full, requestSerialize, responseDeserialize, metadata, options),
  );
}

// Remembers how a stream has failed: it may do so while nobody reads.
function kept(stream) {
  return stream.on("error", (error) => {
    stream.failure = error;
  });
}

// Begins one request with many answers.
function ask(client, path, request, options = soon()) {
  const { requestSerialize, responseDeserialize } = methodOf(path);
  return kept(
    client.makeServerStreamRequest(
      `/${path}`,
      requestSerialize,
      responseDeserialize,
      request,
      carrying([]),
      options,
    ),
  );
}

function foreign(client, path) {
  const same = (bytes) => bytes;
  return new Promise((resolve, reject) => {
    const answered = (error, answer) => (error ? reject(error) : resolve(answer));
    client.makeUnaryRequest(path, same, same, Buffer.alloc(0), carrying([]), soon(), answered);
  });
}

function fails(promise, code, details = /.*/) {
  return assert.rejects(promise, { code, details });
}

const key = (name) => Buffer.from(prefix + name);

function put(client, name, value, ...how) {
  return call(client, "etcdserverpb.KV/Put", { key: key(name), value }, ...how);
}

async function get(client, name, ...how) {
  const answer = await call(client, "etcdserverpb.KV/Range", { key: key(name) }, ...how);
  assert.equal(answer.kvs.length, 1);
  return answer.kvs[0].value.toString();
}

function numbered(name, number, size) {
  const digits = String(number).padStart(5, "0");
  return { key: key(`${name}/${digits}`), value: Buffer.from(digits + "x".repeat(size)) };
}

// Puts many keys, each with its number and padding as value.
async function fill(client, name, size) {
  for (let begin = 0; begin < MANY; begin += BATCH) {
    const success = [];
    for (let number = begin; number < begin + BATCH; number++) {
      success.push({ request_put: numbered(name, number, size) });
    }
    await call(client, "etcdserverpb.KV/Txn", { success });
  }
}

// Reads a stream's next message; nothing is read ahead of it.
async function next(stream) {
  for (;;) {
    const message = stream.read();
    if (message !== null) return message;
    if (stream.failure !== undefined) throw stream.failure;
    if (stream.readableEnded) return null;
    await new Promise((resolve) => {
      const settle = () => {
        stream.off("readable", settle).off("end", settle).off("error", settle);
        resolve();
      };
      stream.on("readable", settle).on("end", settle).on("error", settle);
    });
  }
}

// Watches all keys below a name, once that is so.
async function watch(client, name, revision = 0, metadata = carrying([]), options = soon()) {
  const watching = open(client, "etcdserverpb.Watch/Watch", metadata, options);
  watching.write({
    create_request: {
      key: key(`${name}/`),
      range_end: key(`${name}0`),
      start_revision: revision,
    },
  });
  assert.ok((await next(watching)).created);
  return watching;
}

async function inOrder(watching, name, size) {
  for (let number = 0; number < MANY;) {
    for (const event of (await next(watching)).events) {
      const expected = numbered(name, number, size);
      assert.ok(expected.key.equals(event.kv.key), `${event.kv.key} is not number ${number}`);
      assert.ok(expected.value.equals(event.kv.value));
      number++;
    }
  }
  watching.cancel();
}

const values = (answer) => answer.events.map((event) => event.kv.value.toString());

// How many calls of a method the server counts as over. What it calls them is no matter: Node ends
// its half of a stream in good order before it gives the stream up.
async function handled(name) {
  const [host, port] = process.env.KVSECURE_ENDPOINT.split(":");
  const ca = readFileSync(process.env.KVSECURE_CA);
  const asked = https.get({ host, port, path: "/metrics", ca, agent: false });
  const [answer] = await once(asked, "response");
  let text = "";
  for await (const piece of answer) text += piece;
  let count = 0;
  for (const [, labels, number] of text.matchAll(
    /^grpc_server_handled_total\{(.*)\} ([0-9.]+)$/gm,
  )) {
    if (labels.includes(`grpc_method="${name}"`)) count += Number(number);
  }
  return count;
}

// Waits until the server has let go of so many calls of a method.
async function untilHandled(name, count) {
  const end = Date.now() + CALL_MS_MAX;
  for (let found = await handled(name); found < count; found = await handled(name)) {
    assert.ok(Date.now() < end, `${found} of ${count} ${name} ended`);
    await sleep(50);
  }
}

const login = () => ({
  name: process.env.KVSECURE_USER,
  password: process.env.KVSECURE_PASSWORD,
});

// Calls with a certificate, and with a token in the metadata.
async function unary(client) {
  await put(client, "x", Buffer.from("v"));
  const other = connect(false);
  const { token } = await call(other, "etcdserverpb.Auth/Authenticate", login());
  assert.equal(await get(other, "x", carrying([["token", token]])), "v");
  const wrong = get(other, "x", carrying([["token", "wrong"]]));
  await fails(wrong, status.UNAUTHENTICATED, /invalid auth token/);
  other.close();
}

// One request, many messages, and their end.
async function server_stream(client) {
  let count = 0;
  for await (const answer of ask(client, "kvsecurepb.Audit/Tail", { count: 10 })) {
    count += answer.records.length;
  }
  assert.equal(count, 10);
}

// Questions and answers take turns on one stream; both ends close another.
async function bidirectional_stream(client) {
  const watching = await watch(client, "both");
  for (let number = 0; number < 20; number++) {
    await put(client, "both/x", Buffer.from(String(number)));
    assert.deepEqual(values(await next(watching)), [String(number)]);
    watching.write({ progress_request: {} });
    assert.equal((await next(watching)).events.length, 0);
  }
  watching.write({ cancel_request: { watch_id: 0 } });
  assert.ok((await next(watching)).canceled);
  watching.cancel();
  const keeping = open(client, "etcdserverpb.Lease/LeaseKeepAlive");
  for (let lease = 1; lease < 20; lease++) {
    keeping.write({ ID: lease });
    assert.equal((await next(keeping)).ID, String(lease));
  }
  const ended = once(keeping, "status");
  keeping.end();
  assert.equal(await next(keeping), null);
  assert.equal((await ended)[0].code, status.OK);
}

// A megabyte comes and goes, four at a time.
async function large_messages(client) {
  const move = async (number) => {
    const value = String.fromCharCode(97 + number).repeat(MEGABYTE);
    await put(client, `large/${number}`, Buffer.from(value));
    assert.ok((await get(client, `large/${number}`)) === value);
  };
  await Promise.all([0, 1, 2, 3].map(move));
}

// Ten thousand small messages each way on one stream.
async function many_requests(client) {
  const { ID } = await call(client, "etcdserverpb.Lease/LeaseGrant", { TTL: 600 });
  const keeping = open(client, "etcdserverpb.Lease/LeaseKeepAlive");
  const send = async () => {
    for (let sent = 0; sent < MANY; sent++) {
      if (!keeping.write({ ID })) await once(keeping, "drain");
    }
    keeping.end();
  };
  const sending = send();
  let count = 0;
  for await (const answer of keeping) count += answer.TTL === "600" ? 1 : 0;
  assert.equal(count, MANY);
  await sending;
}

// Ten thousand events come in order while they happen.
async function many_events(client) {
  const watching = await watch(client, "many");
  await Promise.all([fill(client, "many", 10), inOrder(watching, "many", 10)]);
}

// Who reads nothing for a while gets all of twenty megabytes after that.
async function stalled_reader(client) {
  const watching = await watch(client, "stalled");
  await fill(client, "stalled", 2_048);
  await sleep(1_000);
  // Others on the same connection are served meanwhile.
  await put(client, "x", Buffer.from("beside"));
  assert.equal(await get(client, "x"), "beside");
  await inOrder(watching, "stalled", 2_048);
}

// The server lets go of what is given up, and serves the others on the connection.
async function cancellation(client) {
  const watching = await watch(client, "cancelled");
  const before = await handled("Watch");
  for (let count = 0; count < 20; count++) {
    (await watch(client, "cancelled")).cancel();
    const path = "etcdserverpb.Auth/Authenticate";
    let begun;
    const given = call(client, path, login(), carrying([]), soon(), (started) => {
      begun = started;
    });
    setTimeout(() => begun.cancel(), 1);
    await fails(given, status.CANCELLED);
  }
  await untilHandled("Watch", before + 20);
  await put(client, "cancelled/x", Buffer.from("v"));
  assert.deepEqual(values(await next(watching)), ["v"]);
  watching.cancel();
}

// A call ends at its deadline, at the server as well.
async function deadline(client) {
  const before = await handled("LeaseKeepAlive");
  for (let count = 0; count < 5; count++) {
    const keeping = open(client, "etcdserverpb.Lease/LeaseKeepAlive", carrying([]), soon(100));
    await fails(next(keeping), status.DEADLINE_EXCEEDED);
    const late = call(client, "etcdserverpb.Auth/Authenticate", login(), carrying([]), soon(2));
    await fails(late, status.DEADLINE_EXCEEDED);
  }
  await untilHandled("LeaseKeepAlive", before + 5);
  await put(client, "late", Buffer.alloc(0));
}

function pinging(interval) {
  return connect(true, {
    "grpc.keepalive_time_ms": interval,
    "grpc.keepalive_timeout_ms": 5_000,
  });
}

// Pings as often as they may come leave a connection alone.
async function pings_permitted() {
  const client = pinging(600);
  const watching = await watch(client, "pinged");
  await sleep(3_200);
  await put(client, "pinged/x", Buffer.from("v"));
  assert.deepEqual(values(await next(watching)), ["v"]);
  watching.cancel();
  client.close();
}

// Pings that come too often end the connection, with gRPC's word for it.
async function pings_excessive() {
  const client = pinging(100);
  const watching = await watch(client, "pinged");
  // What HTTP/2's ENHANCE_YOUR_CALM becomes.
  await fails(next(watching), status.RESOURCE_EXHAUSTED);
  await put(client, "pinged/x", Buffer.from("v"), carrying([], { waitForReady: true }));
  client.close();
}

// Requests may be compressed, on a stream too, and answers may be.
async function compression() {
  const client = connect(true, {
    "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip,
  });
  const value = "compress me ".repeat(50_000);
  await put(client, "gzip", Buffer.from(value));
  assert.equal(await get(client, "gzip"), value);
  const watching = await watch(client, "gzip");
  await put(client, "gzip/x", Buffer.from(value));
  assert.deepEqual(values(await next(watching)), [value]);
  watching.cancel();
  client.close();
}

// Too large a request is refused in etcd's words, too large a message in Go's.
async function oversize(client) {
  const large = put(client, "x", Buffer.alloc(1_600_000));
  await fails(large, status.INVALID_ARGUMENT, /^etcdserver: request is too large$/);
  const huge = put(client, "x", Buffer.alloc(3_000_000));
  const text = /^grpc: received message larger than max \(30000\d\d vs\. 2097152\)$/;
  await fails(huge, status.RESOURCE_EXHAUSTED, text);
  await put(client, "x", Buffer.from("v"));
}

// What there is not is unimplemented.
async function unknown(client) {
  const method = /^unknown method Steal for service etcdserverpb.KV$/;
  await fails(foreign(client, "/etcdserverpb.KV/Steal"), status.UNIMPLEMENTED, method);
  const service = /^unknown service no.Service$/;
  await fails(foreign(client, "/no.Service/Get"), status.UNIMPLEMENTED, service);
  const same = (bytes) => bytes;
  const nowhere = ["/no.Service/Get", same, same, carrying([]), soon()];
  const stream = kept(client.makeBidiStreamRequest(...nowhere));
  await fails(next(stream), status.UNIMPLEMENTED);
}

// Metadata of any kind is taken: several values of a name, and bytes.
async function metadata(client) {
  const all = Buffer.from(Array.from({ length: 256 }, (_, number) => number));
  const carried = carrying([
    ["trace-bin", all],
    ["trace-bin", Buffer.alloc(0)],
    ["trace-bin", Buffer.from([0])],
    ["trace", "one"],
    ["trace", "two, three"],
  ]);
  await put(client, "x", Buffer.from("v"), carried);
  const keeping = open(client, "etcdserverpb.Lease/LeaseKeepAlive", carried);
  keeping.end({ ID: 1 });
  assert.equal((await next(keeping)).TTL, "0");
}

// The text of an error arrives as it was meant, whatever characters are in it.
async function error_text(client) {
  // Node takes each character of a header for a byte.
  const path = Buffer.from("/nö.Sérvice%20/Get").toString("latin1");
  const text = /^unknown service nö\.Sérvice%20$/;
  await fails(foreign(client, path), status.UNIMPLEMENTED, text);
}

// The standard health service answers once, and as long as somebody watches.
async function health(client) {
  const serving = 1;
  const serviceUnknown = 3;
  const nobody = { service: "no.Service" };
  const answer = await call(client, "grpc.health.v1.Health/Check", {});
  assert.equal(answer.status, serving);
  const missed = call(client, "grpc.health.v1.Health/Check", nobody);
  await fails(missed, status.NOT_FOUND, /unknown service/);
  for (const [asked, expected] of [
    [{}, serving],
    [nobody, serviceUnknown],
  ]) {
    const watching = ask(client, "grpc.health.v1.Health/Watch", asked);
    assert.equal((await next(watching)).status, expected);
    watching.cancel();
  }
}

// The server tells what it speaks.
async function reflection(client) {
  const stream = open(client, "grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
  stream.write({ list_services: "*" });
  const names = (await next(stream)).list_services_response.service.map(({ name }) => name);
  for (const expected of ["etcdserverpb.KV", "etcdserverpb.Watch", "grpc.health.v1.Health"]) {
    assert.ok(names.includes(expected), `${names}`);
  }
  stream.end({ file_containing_symbol: "etcdserverpb.KV" });
  assert.ok((await next(stream)).file_descriptor_response.file_descriptor_proto.length > 0);
}

// A server that goes away in good order and comes back is found again by the same channel.
async function restart(client) {
  const watching = await watch(client, "restart");
  await put(client, "restart/x", Buffer.from("before"));
  assert.deepEqual(values(await next(watching)), ["before"]);
  const ended = fails(next(watching), status.UNAVAILABLE);
  console.log("restart");
  const lines = createInterface({ input: process.stdin });
  await once(lines, "line");
  lines.close();
  await ended;
  const ready = carrying([], { waitForReady: true });
  assert.equal(await get(client, "restart/x", ready), "before");
  await put(client, "restart/x", Buffer.from("after"));
  const again = await watch(client, "restart", 1);
  assert.deepEqual(values(await next(again)), ["before", "after"]);
  again.cancel();
}

const checks = {
  unary,
  server_stream,
  bidirectional_stream,
  large_messages,
  many_requests,
  many_events,
  stalled_reader,
  cancellation,
  deadline,
  pings_permitted,
  pings_excessive,
  compression,
  oversize,
  unknown,
  metadata,
  error_text,
  health,
  reflection,
  restart,
};

async function limited(promise) {
  let overdue;
  const late = new Promise((_, reject) => {
    overdue = setTimeout(() => reject(new Error("it takes too long")), CHECK_MS_MAX);
  });
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(overdue);
  }
}

// Does checks in a row over one channel, and says how each of them ended.
async function main(names) {
  const client = connect();
  for (const name of names) {
    const begun = performance.now();
    let verdict = "passed";
    try {
      await limited(checks[name](client));
    } catch (error) {
      console.error(`${name}:`, error);
      verdict = "failed";
    }
    console.log(verdict, name, ((performance.now() - begun) / 1_000).toFixed(2));
  }
  client.close();
  // What a failed check has left open would keep this program from ending.
  process.exit(0);
}

main(process.argv.slice(2));
