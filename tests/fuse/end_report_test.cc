#include "fuse/end_report.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <optional>
#include <string>
#include <utility>

namespace pellucid::fuse {
namespace {

TEST(EndReportTest, AllWhoAskedBeforeTheEndAreTold) {
  for (const int error : {0, ENOSPC}) {
    std::optional<EndReport> report(std::in_place);
    ASSERT_NE(report->name(), "");
    EXPECT_EQ(report->name().find(' '), std::string::npos);
    const EndReportReader first(report->name());
    { const EndReportReader gone(report->name()); }
    const EndReportReader second(report->name());
    ASSERT_TRUE(first.is_connected() && second.is_connected());
    report->Tell(error);
    report.reset();
    EXPECT_EQ(first.Read(), error);
    EXPECT_EQ(second.Read(), error);
  }
}

TEST(EndReportTest, AnEndWithoutAReportIsSeen) {
  std::optional<EndReport> report(std::in_place);
  const EndReportReader reader(report->name());
  ASSERT_TRUE(reader.is_connected());
  EXPECT_EQ(reader.Read(), std::nullopt);
  report.reset();
  EXPECT_EQ(reader.Read(), std::nullopt);
}

TEST(EndReportTest, WhatIsNoServerIsNotConnectedTo) {
  std::string name;
  {
    const EndReport report;
    name = report.name();
  }
  EXPECT_FALSE(EndReportReader(name).is_connected());
  EXPECT_FALSE(EndReportReader("").is_connected());
  EXPECT_FALSE(EndReportReader(std::string(500, 'a')).is_connected());
}

}  // namespace
}  // namespace pellucid::fuse
