#!/bin/sh
exec java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Xmx256M -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*' org.apache.kafka.tools.TopicCommand "$@"
