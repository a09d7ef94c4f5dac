package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// What the server said about its messages.
var described *protoregistry.Files

// fields are the values of a message by name: []byte, string, int64, bool, fields, []fields.
type fields map[string]any

// describe asks the server, once, what its messages look like.
func describe(ctx context.Context, channel *grpc.ClientConn) error {
	if described != nil {
		return nil
	}
	stream, err := reflectionpb.NewServerReflectionClient(channel).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	known := map[string]*descriptorpb.FileDescriptorProto{}
	for _, symbol := range []string{
		"etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "etcdserverpb.Auth",
		"grpc.health.v1.Health", "kvsecurepb.Audit",
	} {
		question := &reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol},
		}
		if err := stream.Send(question); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, encoded := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
			file := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(encoded, file); err != nil {
				return err
			}
			known[file.GetName()] = file
		}
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, file := range known {
		set.File = append(set.File, file)
	}
	described, err = protodesc.NewFiles(set)
	return err
}

// method returns the descriptor of a method such as etcdserverpb.KV/Put.
func method(path string) protoreflect.MethodDescriptor {
	service, name, _ := strings.Cut(path, "/")
	found, err := described.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", path, err))
	}
	return found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
}

// make a message of a type with these values.
func message(kind protoreflect.MessageDescriptor, with fields) *dynamicpb.Message {
	made := dynamicpb.NewMessage(kind)
	for name, value := range with {
		field := kind.Fields().ByName(protoreflect.Name(name))
		switch value := value.(type) {
		case fields:
			made.Set(field, protoreflect.ValueOfMessage(message(field.Message(), value)))
		case []fields:
			list := made.Mutable(field).List()
			for _, each := range value {
				list.Append(protoreflect.ValueOfMessage(message(field.Message(), each)))
			}
		default:
			made.Set(field, protoreflect.ValueOf(value))
		}
	}
	return made
}

// at returns a value inside a message by the names on the way to it.
func at(whole protoreflect.Message, names ...string) protoreflect.Value {
	value := protoreflect.ValueOfMessage(whole)
	for _, name := range names {
		inner := value.Message()
		value = inner.Get(inner.Descriptor().Fields().ByName(protoreflect.Name(name)))
	}
	return value
}

// call makes a unary call.
func call(
	ctx context.Context, channel *grpc.ClientConn, path string, with fields, how ...grpc.CallOption,
) (*dynamicpb.Message, error) {
	called := method(path)
	answer := dynamicpb.NewMessage(called.Output())
	err := channel.Invoke(ctx, "/"+path, message(called.Input(), with), answer, how...)
	return answer, err
}

// dialogue is a stream.
type dialogue struct {
	grpc.ClientStream
	called protoreflect.MethodDescriptor
}

func open(
	ctx context.Context, channel *grpc.ClientConn, path string, how ...grpc.CallOption,
) (*dialogue, error) {
	called := method(path)
	shape := &grpc.StreamDesc{
		ClientStreams: called.IsStreamingClient(), ServerStreams: called.IsStreamingServer(),
	}
	stream, err := channel.NewStream(ctx, shape, "/"+path, how...)
	return &dialogue{stream, called}, err
}

func (d *dialogue) send(with fields) error {
	return d.SendMsg(message(d.called.Input(), with))
}

func (d *dialogue) receive() (*dynamicpb.Message, error) {
	answer := dynamicpb.NewMessage(d.called.Output())
	err := d.RecvMsg(answer)
	return answer, err
}
