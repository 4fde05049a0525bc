"""Requests of the Open Inference Protocol are read strictly, and answers say what the tensors hold."""

import json
import struct
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.errors import BadRequest
from serve_app.tensors.datatypes import DTYPES, to_bytes
from serve_app.tensors.signature import DATATYPES, Datatype, Signature
from serve_app.tensors.wire import Asked, read_request, write_answer


def signature(datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2), more: bool = False) -> Signature:
    spec = {"name": "x", "datatype": datatype, "shape": shape}
    second = [{"name": "y", "datatype": "INT32", "shape": [-1]}] if more else []
    return Signature.model_validate({"inputs": [spec, *second], "outputs": [{**spec, "name": "out"}]})


def asked(of: Signature, header_length: str | None = None, tail: bytes = b"", **fields: Any) -> Asked:
    body = json.dumps(fields).encode()
    return read_request(of, body + tail, str(len(body)) if header_length == "right" else header_length)


def x(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4], **fields}


VALUES: dict[Datatype, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-0.5, 65504],
    "BF16": [-0.5, 1.0],
    "FP32": [-0.1, 3e38],
    "FP64": [-0.1, 1e308],
}


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_there_and_back_as_json_and_as_bytes(datatype: Datatype) -> None:
    of = signature(datatype)
    flat = asked(of, inputs=[x(datatype=datatype, shape=[1, 2], data=VALUES[datatype])])
    nested = asked(of, inputs=[x(datatype=datatype, shape=[1, 2], data=[VALUES[datatype]])])
    assert flat.inputs[0].dtype is DTYPES[datatype]
    assert torch.equal(flat.inputs[0], nested.inputs[0])
    told = json.loads(write_answer("m", "1", flat, of, flat.inputs).body)["outputs"][0]
    expected = torch.tensor(VALUES[datatype], dtype=DTYPES[datatype]).tolist()
    assert told == {"name": "out", "datatype": datatype, "shape": [1, 2], "data": expected}
    binary = Asked("", flat.inputs, {"out": True})
    answer = write_answer("m", "1", binary, of, flat.inputs)
    head, tail = answer.body[: answer.header_length], answer.body[answer.header_length :]
    assert json.loads(head)["outputs"][0]["parameters"] == {"binary_data_size": len(tail)}
    field = {"name": "x", "datatype": datatype, "shape": [1, 2], "parameters": {"binary_data_size": len(tail)}}
    assert torch.equal(asked(of, "right", tail, inputs=[field]).inputs[0], flat.inputs[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": []}, "length >= 1"),
        ({}, "missing required field `inputs`"),
        ({"inputs": [x()], "input": 1}, "unknown field `input`"),
        ({"inputs": [x(name="z")]}, "There is no input 'z'; there are x"),
        ({"inputs": [x(), x()]}, "'x' is given 2 times"),
        ({"inputs": [x(datatype="FP64")]}, "'x' is FP32, not FP64"),
        ({"inputs": [x(datatype="BYTES")]}, "'x' is BYTES, which programs of tensors cannot take"),
        ({"inputs": [x(datatype="fp32")]}, "'fp32' is no datatype"),
        ({"inputs": [x(shape=[4, 1])]}, r"shape \[-1, 2\], not \[4, 1\]"),
        ({"inputs": [x(shape=[2])]}, r"not \[2\]"),
        ({"inputs": [x(shape=[0, 2], data=[])]}, ">= 1"),
        ({"inputs": [x(shape=[-2, -2])]}, ">= 1"),
        ({"inputs": [x(shape=[2**40, 2])]}, "<= "),
        ({"inputs": [x(shape=[2.5, 2])]}, "Expected `int`"),
        ({"inputs": [x(shape=[2**31, 2])]}, "has 4 values, and its shape"),
        ({"inputs": [x(data=[1, 2, 3])]}, "has 3 values"),
        ({"inputs": [x(data=[[1, 2], [3]])]}, "nested unevenly"),
        ({"inputs": [x(data=[[1, 2, 3, 4]])]}, r"has the shape \[1, 4\]"),
        ({"inputs": [x(data=[[[1, 2], [3, 4]]])]}, "flat or nested as its shape"),
        ({"inputs": [x(data="1234")]}, "flat or nested as its shape"),
        ({"inputs": [x(data=[1, 2, 3, None])]}, "flat or nested as its shape"),
        ({"inputs": [x(data=[1, 2, 3, "4"])]}, "flat or nested as its shape"),
        ({"inputs": [x(data=[1, 2, 3, True])]}, "flat or nested as its shape"),
        ({"inputs": [x(data=[1, 2, 3, 1e39])]}, "a value that FP32 cannot hold"),
        ({"inputs": [{k: v for k, v in x().items() if k != "data"}]}, "'x' has no data"),
        ({"inputs": [x(parameters={"binary_data_size": 4})]}, "both as JSON and as binary"),
        ({"inputs": [x()], "outputs": [{"name": "z"}]}, "There is no output 'z'; there are out"),
        ({"inputs": [x()], "outputs": [{"name": "out"}] * 2}, "asked for twice"),
        ({"inputs": [x()], "outputs": [{"name": "out", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"inputs": [x()], "id": "i" * 257}, "length <= 256"),
        ({"inputs": [x()], "id": 7}, "Expected `str`"),
    ],
)
def test_a_mistake_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        asked(signature(), **fields)


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 128), ("UINT64", 2**64), ("INT64", 2**63), ("UINT8", -1)])
def test_integers_out_of_range_are_refused_not_wrapped(datatype: Datatype, value: int) -> None:
    with pytest.raises(BadRequest, match="'x'"):
        asked(signature(datatype), inputs=[x(datatype=datatype, data=[0, 0, 0, value])])


def test_every_input_must_be_there_and_have_as_many_rows() -> None:
    both = signature(more=True)
    with pytest.raises(BadRequest, match="'y' is missing"):
        asked(both, inputs=[x()])
    y = {"name": "y", "datatype": "INT32", "shape": [3], "data": [1, 2, 3]}
    with pytest.raises(BadRequest, match="differ in their first dimension"):
        asked(both, inputs=[y, x()])
    y |= {"shape": [2], "data": [1, 2]}
    assert [tuple(tensor.shape) for tensor in asked(both, inputs=[y, x()]).inputs] == [(2, 2), (2,)]


@pytest.mark.parametrize("datatype", ["INT64", "INT32", "INT8", "UINT8", "UINT16", "UINT32"])
@pytest.mark.parametrize("binary", [False, True])
def test_values_outside_of_their_bounds_are_refused(datatype: Datatype, binary: bool) -> None:
    spec = {"name": "x", "datatype": datatype, "shape": [-1, 2], "minimum": 1, "maximum": 49}
    of = Signature.model_validate({"inputs": [spec], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]})

    def holding(*values: int) -> Asked:
        field: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": [1, 2]}
        if not binary:
            return asked(of, inputs=[{**field, "data": values}])
        tail = to_bytes(torch.tensor(values, dtype=DTYPES[datatype]))
        return asked(of, "right", tail, inputs=[{**field, "parameters": {"binary_data_size": len(tail)}}])

    assert holding(1, 49).inputs[0].tolist() == [[1, 49]]
    with pytest.raises(BadRequest, match="The input 'x' holds 50, and its maximum is 49"):
        holding(1, 50)
    with pytest.raises(BadRequest, match="The input 'x' holds 0, and its minimum is 1"):
        holding(0, 49)


@pytest.mark.parametrize("length", ["", "-1", "x", "+1", "1" * 13, "99999", "٣"])
def test_a_header_length_that_cannot_be_is_refused(length: str) -> None:
    with pytest.raises(BadRequest, match="must be a number of at most"):
        asked(signature(), length, inputs=[x()])


@pytest.mark.parametrize(
    ("size", "tail", "message"),
    [
        (16, b"1234", "and 4 are left"),
        (4, b"1234", "has 4 bytes, and FP32 of shape"),
        (16, b"1" * 17, "1 bytes behind the JSON"),
        (-1, b"", "-1 bytes"),
        (True, b"1", "True bytes"),
        ("16", b"1" * 16, "'16' bytes"),
    ],
)
def test_binary_data_that_does_not_fit_is_refused(size: Any, tail: bytes, message: str) -> None:
    field = {"name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": size}}
    with pytest.raises(BadRequest, match=message):
        asked(signature(), "right", tail, inputs=[field])


def test_tensors_lie_behind_the_json_in_its_order_whatever_the_signatures() -> None:
    fields: list[dict[str, Any]] = [
        {"name": "y", "datatype": "INT32", "shape": [1], "parameters": {"binary_data_size": 4}},
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
    ]
    read = asked(signature(more=True), "right", struct.pack("<iff", 7, 0.5, 1.5), inputs=fields)
    assert [tensor.tolist() for tensor in read.inputs] == [[[0.5, 1.5]], [7]]


def test_the_id_and_the_outputs_that_were_asked_for_come_back() -> None:
    of = Signature.model_validate(
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in "abc"],
        }
    )
    wish = [{"name": "c", "parameters": {"binary_data": True}}, {"name": "a"}]
    read = asked(of, inputs=[x()], outputs=wish, id="mine", parameters={"anything": {"goes": 1}})
    answer = write_answer("m", "v", read, of, [torch.tensor([float(n)]) for n in range(3)])
    head = json.loads(answer.body[: answer.header_length])
    assert (head["model_name"], head["model_version"], head["id"]) == ("m", "v", "mine")
    assert [output["name"] for output in head["outputs"]] == ["c", "a"]
    assert head["outputs"][1]["data"] == [0.0]
    assert struct.unpack("<f", answer.body[answer.header_length :]) == (2.0,)


def test_what_json_cannot_say_is_not_made_up() -> None:
    of = signature()
    read = asked(of, inputs=[x()])
    with pytest.raises(BadRequest, match="ask for it as binary"):
        write_answer("m", "v", read, of, [torch.tensor([[float("nan"), 1.0]])])


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 300).map(str)))
@settings(max_examples=200, deadline=None)
def test_no_body_is_too_broken_to_refuse(body: bytes, header_length: str | None) -> None:
    with pytest.raises(BadRequest):
        read_request(signature(), body, header_length)
