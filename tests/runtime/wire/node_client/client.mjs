// A client generated from the .proto by @grpc/proto-loader, on Node's own HTTP/2: asks model `m` (y = 2 x on FP32
// [batch, 4]) in several ways and prints what it got as one line of JSON.
//
//     node client.mjs ADDRESS FOLDER_OF_PROTOS

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [address, protos] = process.argv.slice(2);
const definition = loadSync("inference/grpc_service.proto", { includeDirs: [protos], keepCase: true, defaults: true });
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;

const connect = (options = {}) =>
  new GRPCInferenceService(address, grpc.credentials.createInsecure(), options);

const request = (values, more = {}) => ({
  model_name: "m",
  inputs: [{ name: "x", datatype: "FP32", shape: [values.length / 4, 4] }],
  raw_input_contents: [Buffer.from(Float32Array.from(values).buffer)],
  ...more,
});

const floats = ({ raw_output_contents: [raw] }) =>
  Array.from({ length: raw.length / 4 }, (_, index) => raw.readFloatLE(4 * index));

const infer = (client, message, options = {}) =>
  new Promise((resolve) => {
    client.ModelInfer(message, options, (error, answer) =>
      resolve(error ? { code: error.code, details: error.details } : { id: answer.id, values: floats(answer) }),
    );
  });

const stream = (client, messages) =>
  new Promise((resolve, reject) => {
    const call = client.ModelStreamInfer();
    const ids = [];
    call.on("data", ({ error_message, infer_response }) => ids.push(error_message || infer_response.id));
    call.on("error", reject);
    call.on("end", () => resolve(ids));
    messages.forEach((message) => call.write(message));
    call.end();
  });

const client = connect();
const gzip = connect({ "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip });
const large = Array.from({ length: 150_528 }, (_, index) => index % 100);
const typed = request([1, 2, 3, 4], { raw_input_contents: [] });
typed.inputs[0].contents = { fp32_contents: [1, 2, 3, 4] };
const doubled = (values) => ({ values: answer }) => answer.every((value, at) => value === 2 * values[at]);

const results = {
  one: await infer(client, request([1, 2, 3, 4], { id: "one" })),
  typed: await infer(client, typed),
  large: doubled(large)(await infer(client, request(large))),
  gzip: doubled(large)(await infer(gzip, request(large))),
  many: await Promise.all(
    Array.from({ length: 300 }, (_, number) => infer(client, request([number, 0, 0, 0]))),
  ).then((answers) => answers.every(({ values: [first] }, number) => first === 2 * number)),
  stream: await stream(client, Array.from({ length: 100 }, (_, id) => request([id, 0, 0, 0], { id: `${id}` }))),
  refused: await infer(client, request([1, 2, 3, 4], { model_name: "n" })),
  late: await infer(client, request([1, 2, 3, 4]), { deadline: Date.now() - 1 }),
};
console.log(JSON.stringify(results));
client.close();
gzip.close();
