package sinks

import (
	"errors"
	"strconv"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// Error codes of ClickHouse that are told apart here
// (https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp).
const (
	codeCannotParseText         = 6
	codeNoSuchColumnInTable     = 16
	codeCannotParseQuotedString = 26
	codeCannotParseInput        = 27
	codeCannotParseDate         = 38
	codeUnknownIdentifier       = 47
	// Columns are typed before they are sent, so a type that does not fit concerns all rows of a table.
	codeTypeMismatch          = 53
	codeUnknownTable          = 60
	codeArgumentOutOfBound    = 69
	codeUnknownDatabase       = 81
	codeIncorrectData         = 117
	codeTooLargeStringSize    = 131
	codeReadonly              = 164
	codeUnknownUser           = 192
	codeWrongPassword         = 193
	codeRequiredPassword      = 194
	codeMemoryLimitExceeded   = 241
	codeNotEnoughSpace        = 243
	codeTooManyParts          = 252
	codeDatabaseAccessDenied  = 291
	codeInsertWasDeduplicated = 389
	codeViolatedConstraint    = 469
	codeAccessDenied          = 497
	codeAuthenticationFailed  = 516
	codeTableReadonly         = 774
)

// class is what is to be done about a failed INSERT.
type class uint8

const (
	// classRetriable: the server or the way to it is at fault; the same block with the same token is sent again.
	classRetriable class = iota
	// classConfiguration: someone has to act (rights, tables, a full disk); it is tried again all the same,
	// and Ready says what is wrong.
	classConfiguration
	// classData: the server refused the content; the bad row is looked for and goes to quarantine.
	classData
	// classMemory: the server ran out of memory for this block; halves of it are sent.
	classMemory
	// classDone: the server has the block already.
	classDone
)

func (c class) String() string {
	switch c {
	case classConfiguration:
		return "configuration"
	case classData:
		return "data"
	case classMemory:
		return "memory"
	case classDone:
		return "done"
	default:
		return "retriable"
	}
}

// codeNetwork stands for errors without a code of the server: the connection broke or there was none.
const codeNetwork = 0

// exceptionCode returns the server's error code within err, or codeNetwork.
func exceptionCode(err error) int {
	if e, ok := ch.AsException(err); ok {
		return int(e.Code)
	}
	var e *proto.Exception
	if errors.As(err, &e) {
		return int(e.Code)
	}
	var refused *refusedError
	if errors.As(err, &refused) {
		return refused.code
	}
	return codeNetwork
}

// classify says what is to be done about the error of an INSERT. A code that is not known here counts as
// retriable: asking again is never wrong, giving up would lose rows.
func classify(err error) (class, int) {
	code := exceptionCode(err)
	switch code {
	case codeInsertWasDeduplicated:
		return classDone, code
	case codeMemoryLimitExceeded:
		return classMemory, code
	case codeNoSuchColumnInTable, codeUnknownTable, codeUnknownDatabase, codeReadonly, codeUnknownUser, codeWrongPassword,
		codeRequiredPassword, codeDatabaseAccessDenied, codeAccessDenied, codeAuthenticationFailed,
		codeNotEnoughSpace, codeUnknownIdentifier, codeTypeMismatch, codeTableReadonly:
		return classConfiguration, code
	case codeCannotParseText, codeCannotParseQuotedString, codeCannotParseInput, codeCannotParseDate,
		codeArgumentOutOfBound, codeIncorrectData, codeTooLargeStringSize, codeViolatedConstraint:
		return classData, code
	}
	return classRetriable, code
}

// codeLabel is the value of the metric label code.
func codeLabel(code int) string {
	if code == codeNetwork {
		return "network"
	}
	return strconv.Itoa(code)
}
