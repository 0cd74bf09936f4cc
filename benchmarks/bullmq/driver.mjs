// A producer for BullMQ: the orders and answers of bench/driver.py.
import readline from "node:readline";
import { FlowProducer, Queue } from "bullmq";
import { hasBegun, pause, push as stampPush } from "./board.mjs";
import { connect, QUEUE } from "./connection.mjs";

const queue = new Queue(QUEUE, { connection: connect() });
await queue.waitUntilReady();
const flows = process.env.BENCH_FAN_IN ? new FlowProducer({ connection: connect() }) : null;

const say = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");
const dataOf = (order, index) => ({ index, data: "x".repeat(order.size ?? 100) });

async function push(order) {
  const last = order.first + order.count;
  if (order.style === "bulk") {
    for (let start = order.first; start < last; start += order.chunk) {
      const jobs = [];
      for (let index = start; index < Math.min(last, start + order.chunk); index++) {
        jobs.push({ name: order.task, data: dataOf(order, index) });
      }
      await queue.addBulk(jobs);
    }
  } else if (order.style === "fan-in") {
    stampPush(order.first);
    const children = [];
    for (let index = order.first; index < last - 1; index++) {
      children.push({ name: "part", queueName: QUEUE, data: dataOf(order, index) });
    }
    await flows.add({ name: "collect", queueName: QUEUE, data: dataOf(order, last - 1), children });
  } else {
    for (let index = order.first; index < last; index++) {
      if (order.stamp) stampPush(index);
      await queue.add(order.task, dataOf(order, index));
    }
  }
  return order.count;
}

async function probe(order) {
  let seen = 0;
  for (let index = order.first; index < order.first + order.count; index++) {
    stampPush(index);
    await queue.add(order.task, dataOf(order, index));
    const deadline = Date.now() + 10_000;
    while (!hasBegun(index)) {
      if (Date.now() > deadline) return seen;
      await pause(1);
    }
    seen++;
    await pause(order.pause * 1000);
  }
  return seen;
}

say({ hello: "bullmq" });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const wall = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  try {
    const count = await (order.do === "probe" ? probe(order) : push(order));
    const used = process.cpuUsage(cpu);
    say({ count, seconds: Number(process.hrtime.bigint() - wall) / 1e9, cpu: (used.user + used.system) / 1e6 });
  } catch (error) {
    say({ error: String(error) });
  }
}
process.exit(0);
