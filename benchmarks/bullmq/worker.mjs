// A BullMQ worker: one process with BENCH_CONCURRENCY jobs at a time; ended jobs are not kept.
import { Worker } from "bullmq";
import { begin, beginAndEnd, end, pause, waitAtGate } from "./board.mjs";
import { connect, QUEUE } from "./connection.mjs";

async function run(job) {
  const { index } = job.data;
  if (job.name === "async_noop") {
    beginAndEnd(index);
    return;
  }
  if (job.name === "part") {
    beginAndEnd(index);
    return index;
  }
  if (job.name === "collect") {
    begin(index);
    const results = Object.values(await job.getChildrenValues());
    end(index);
    return results.length;
  }
  begin(index);
  await pause(1);
  end(index);
}

await waitAtGate();
const worker = new Worker(QUEUE, run, {
  connection: connect(),
  concurrency: Number(process.env.BENCH_CONCURRENCY),
  removeOnComplete: { count: 0 },
  removeOnFail: { count: 0 },
});
worker.on("error", (error) => console.error(error));
