"""Protobuf classes for the tests, of two files of which one imports the other; made without protoc."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

_Field = descriptor_pb2.FieldDescriptorProto


def _field(message: Any, name: str, number: int, kind: Any, type_name: str = "") -> None:
    field = message.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL)
    if type_name:
        field.type_name = type_name


def _make() -> tuple[Any, Any]:
    pool = descriptor_pool.Default()
    money = descriptor_pb2.FileDescriptorProto(name="shop/money.proto", package="shop", syntax="proto3")
    _field(money.message_type.add(name="Money"), "cents", 1, _Field.TYPE_INT64)
    order = descriptor_pb2.FileDescriptorProto(
        name="shop/order.proto",
        package="shop",
        syntax="proto3",
        dependency=["shop/money.proto", timestamp_pb2.DESCRIPTOR.name],
    )
    order.message_type.add(name="Unused")
    message = order.message_type.add(name="Order")
    _field(message, "id", 1, _Field.TYPE_INT64)
    _field(message, "total", 2, _Field.TYPE_MESSAGE, ".shop.Money")
    _field(message, "at", 3, _Field.TYPE_MESSAGE, ".google.protobuf.Timestamp")
    message.nested_type.add(name="Empty")
    line = message.nested_type.add(name="Line")
    _field(line, "article", 1, _Field.TYPE_STRING)
    pool.Add(money)
    pool.Add(order)
    find = pool.FindMessageTypeByName
    return (
        message_factory.GetMessageClass(find("shop.Order")),
        message_factory.GetMessageClass(find("shop.Order.Line")),
    )


Order, Line = _make()
